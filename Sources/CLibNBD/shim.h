// libnbd's own header, for the tests and (later) for remote legs.
#include <libnbd.h>
