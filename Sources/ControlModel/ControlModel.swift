// The room ControlModel.
