// The description of the HTTP interface, as it is served at /openapi.yaml.
//
// It is the same text as docs/control-api.yaml; a test compares the two.

/// The description of the HTTP interface.
enum OpenAPI {
  /// OpenAPI 3.1 in YAML.
  static let yaml = #"""
    openapi: 3.1.0
    info:
      title: nbdmirror control socket
      version: "1"
      description: >-
        HTTP on the control socket (a unix socket, mode 0600) of a mirror that is served, and over TCP, with
        a token, if serve was told to. Commands run one after the other and answer when the change is
        durable; queries are answered meanwhile. A command with If-Match is performed only if the mirror is
        still at that revision, else the answer is 412. Every key of an answer is always there; what is not
        known is null. Sizes are bytes.
    security:
      - {}
      - token: []
    servers:
      - url: http://localhost
    paths:
      /v1/mirror:
        get:
          operationId: mirror
          summary: The mirror, its legs, the resync and the scrub.
          parameters:
            - {name: If-None-Match, in: header, schema: {type: string}}
          responses:
            "200": {$ref: "#/components/responses/Mirror"}
            "304": {description: The mirror is at that revision., headers: {ETag: {schema: {type: string}}}}
            default: {$ref: "#/components/responses/Problem"}
      /v1/legs:
        get:
          operationId: legs
          summary: The configured legs, by slot.
          responses:
            "200":
              description: The legs.
              content:
                application/json:
                  schema: {type: array, maxItems: 8, items: {$ref: "#/components/schemas/Leg"}}
            default: {$ref: "#/components/responses/Problem"}
        post:
          operationId: addLeg
          summary: Adds a leg, or a spare, on a PV.
          requestBody:
            required: true
            content:
              application/json:
                schema:
                  type: object
                  required: [path]
                  additionalProperties: false
                  properties:
                    path: {type: string, minLength: 1, description: A file or a block device.}
                    spare: {type: [boolean, "null"]}
          responses:
            "201": {$ref: "#/components/responses/NewLeg"}
            default: {$ref: "#/components/responses/Problem"}
      /v1/legs/{leg}:
        parameters: [{$ref: "#/components/parameters/Leg"}]
        patch:
          operationId: setLeg
          summary: Changes options that are kept in the leg's label.
          requestBody:
            required: true
            content:
              application/json:
                schema:
                  type: object
                  additionalProperties: false
                  properties: {writeMostly: {type: [boolean, "null"]}}
          responses:
            "200": {$ref: "#/components/responses/Leg"}
            default: {$ref: "#/components/responses/Problem"}
        delete:
          operationId: removeLeg
          summary: Takes a leg out of the mirror.
          responses:
            "200": {$ref: "#/components/responses/Leg"}
            "204": {description: Nothing is left of the leg.}
            default: {$ref: "#/components/responses/Problem"}
      /v1/legs/{leg}/fail:
        parameters: [{$ref: "#/components/parameters/Leg"}]
        post:
          operationId: failLeg
          summary: Takes a leg offline as failed.
          responses:
            "200": {$ref: "#/components/responses/Leg"}
            default: {$ref: "#/components/responses/Problem"}
      /v1/legs/{leg}/readd:
        parameters: [{$ref: "#/components/parameters/Leg"}]
        post:
          operationId: readdLeg
          summary: Brings an offline leg back; it copies what it missed.
          requestBody:
            content:
              application/json:
                schema:
                  type: object
                  additionalProperties: false
                  properties: {force: {type: [boolean, "null"]}}
          responses:
            "200": {$ref: "#/components/responses/Leg"}
            default: {$ref: "#/components/responses/Problem"}
      /v1/legs/{leg}/replace:
        parameters: [{$ref: "#/components/parameters/Leg"}]
        post:
          operationId: replaceLeg
          summary: Puts a new leg in the place of this one.
          requestBody:
            required: true
            content:
              application/json:
                schema:
                  type: object
                  required: [path]
                  additionalProperties: false
                  properties: {path: {type: string, minLength: 1}}
          responses:
            "201": {$ref: "#/components/responses/NewLeg"}
            default: {$ref: "#/components/responses/Problem"}
      /v1/legs/{leg}/refresh:
        parameters: [{$ref: "#/components/parameters/Leg"}]
        post:
          operationId: refreshLeg
          summary: Begins anew with a leg whose disk was repaired.
          requestBody:
            content:
              application/json:
                schema:
                  type: object
                  additionalProperties: false
                  properties: {whole: {type: [boolean, "null"]}}
          responses:
            "200": {$ref: "#/components/responses/Leg"}
            default: {$ref: "#/components/responses/Problem"}
      /v1/connections:
        get:
          operationId: connections
          summary: The clients' connections.
          responses:
            "200":
              description: The connections, by number.
              content:
                application/json:
                  schema: {type: array, items: {$ref: "#/components/schemas/Connection"}}
            default: {$ref: "#/components/responses/Problem"}
      /v1/regions:
        get:
          operationId: regions
          summary: The region map at a glance.
          responses:
            "200":
              description: The map.
              content:
                application/json:
                  schema: {$ref: "#/components/schemas/RegionMap"}
            default: {$ref: "#/components/responses/Problem"}
      /v1/resync:
        get:
          operationId: resync
          summary: The running resync, else the last one.
          responses:
            "200": {$ref: "#/components/responses/Resync"}
            default: {$ref: "#/components/responses/Problem"}
        patch:
          operationId: changeResync
          summary: Pauses or resumes copying, changes its limits; all of it is kept in the labels.
          requestBody:
            required: true
            content:
              application/json:
                schema:
                  type: object
                  minProperties: 1
                  additionalProperties: false
                  properties:
                    paused: {type: [boolean, "null"]}
                    minBytesPerSecond: {type: [integer, "null"], minimum: 0}
                    maxBytesPerSecond: {type: [integer, "null"], minimum: 0}
          responses:
            "200": {$ref: "#/components/responses/Resync"}
            default: {$ref: "#/components/responses/Problem"}
      /v1/scrub:
        get:
          operationId: scrub
          summary: The running scrub, else the last one.
          responses:
            "200": {$ref: "#/components/responses/Scrub"}
            default: {$ref: "#/components/responses/Problem"}
        post:
          operationId: startScrub
          summary: Starts to compare the legs.
          requestBody:
            required: true
            content:
              application/json:
                schema:
                  type: object
                  required: [mode]
                  additionalProperties: false
                  properties:
                    mode: {enum: [check, repair]}
                    prefer: {type: [string, "null"], description: A leg.}
                    offset: {type: [integer, "null"], minimum: 0}
                    bytes: {type: [integer, "null"], minimum: 1}
          responses:
            "202": {$ref: "#/components/responses/Scrub"}
            default: {$ref: "#/components/responses/Problem"}
        delete:
          operationId: stopScrub
          summary: Stops the scrub.
          responses:
            "200": {$ref: "#/components/responses/Scrub"}
            default: {$ref: "#/components/responses/Problem"}
      /v1/faults:
        get:
          operationId: faults
          summary: The faults, in the order they were added.
          responses:
            "200":
              description: The faults.
              content:
                application/json:
                  schema: {type: array, items: {$ref: "#/components/schemas/Fault"}}
            default: {$ref: "#/components/responses/Problem"}
        post:
          operationId: addFault
          summary: Arms a fault.
          requestBody:
            required: true
            content:
              application/json:
                schema:
                  type: object
                  required: [leg, kind]
                  additionalProperties: false
                  properties:
                    leg: {type: string}
                    kind: {type: string, description: See docs/faults.md.}
                    options: {type: object, additionalProperties: {type: string}}
          responses:
            "201": {$ref: "#/components/responses/Fault"}
            default: {$ref: "#/components/responses/Problem"}
        delete:
          operationId: clearFaults
          summary: Removes all faults.
          responses:
            "204": {description: They are gone.}
            default: {$ref: "#/components/responses/Problem"}
      /v1/faults/{name}:
        parameters: [{$ref: "#/components/parameters/Fault"}]
        delete:
          operationId: removeFault
          summary: Removes a fault; what it holds goes on.
          responses:
            "204": {description: It is gone.}
            default: {$ref: "#/components/responses/Problem"}
      /v1/faults/{name}/release:
        parameters: [{$ref: "#/components/parameters/Fault"}]
        post:
          operationId: releaseFault
          summary: Lets go what a hang holds.
          responses:
            "200": {$ref: "#/components/responses/Fault"}
            default: {$ref: "#/components/responses/Problem"}
      /v1/power-cut:
        post:
          operationId: cutPower
          summary: Loses unflushed writes of volatile caches, and ends the server as a power loss would.
          requestBody:
            content:
              application/json:
                schema:
                  type: object
                  additionalProperties: false
                  properties:
                    legs: {type: [array, "null"], items: {type: string}}
                    seed: {type: [integer, "null"], minimum: 0}
          responses:
            "202":
              description: What was lost.
              content: {application/json: {schema: {type: object, required: [seed, legs]}}}
            default: {$ref: "#/components/responses/Problem"}
      /v1/events:
        get:
          operationId: events
          summary: What happened and what happens, as server-sent events, or as an array if JSON is asked for.
          parameters:
            - {name: after, in: query, schema: {type: integer, minimum: 0}}
            - {name: Last-Event-ID, in: header, schema: {type: string}}
          responses:
            "200":
              description: The events.
              content:
                text/event-stream: {schema: {type: string}}
                application/json:
                  schema: {type: array, items: {$ref: "#/components/schemas/Event"}}
            default: {$ref: "#/components/responses/Problem"}
      /metrics:
        get:
          operationId: metrics
          summary: The metrics in Prometheus' text format.
          responses:
            "200": {description: The metrics., content: {text/plain: {schema: {type: string}}}}
            default: {$ref: "#/components/responses/Problem"}
      /openapi.yaml:
        get:
          operationId: description
          summary: This document.
          responses:
            "200": {description: OpenAPI 3.1., content: {application/yaml: {schema: {type: string}}}}
            default: {$ref: "#/components/responses/Problem"}
      /v1/shutdown:
        post:
          operationId: shutdown
          summary: Tells the server to stop cleanly.
          responses:
            "202": {description: It stops.}
            default: {$ref: "#/components/responses/Problem"}
    components:
      securitySchemes:
        token: {type: http, scheme: bearer, description: Over TCP only.}
      parameters:
        Leg:
          name: leg
          in: path
          required: true
          description: A slot number, a leg id, or a percent-encoded path.
          schema: {type: string, minLength: 1}
        Fault: {name: name, in: path, required: true, schema: {type: string, minLength: 1}}
      responses:
        Mirror:
          description: The mirror.
          headers: {ETag: {schema: {type: string}, description: The revision in quotes.}}
          content: {application/json: {schema: {$ref: "#/components/schemas/Mirror"}}}
        Leg:
          description: The leg.
          content: {application/json: {schema: {$ref: "#/components/schemas/Leg"}}}
        NewLeg:
          description: The new leg.
          headers: {Location: {schema: {type: string}}}
          content: {application/json: {schema: {$ref: "#/components/schemas/Leg"}}}
        Resync:
          description: The resync.
          content: {application/json: {schema: {$ref: "#/components/schemas/Resync"}}}
        Scrub:
          description: The scrub.
          content: {application/json: {schema: {$ref: "#/components/schemas/Scrub"}}}
        Fault:
          description: The fault.
          content: {application/json: {schema: {$ref: "#/components/schemas/Fault"}}}
        Problem:
          description: Why not.
          content: {application/problem+json: {schema: {$ref: "#/components/schemas/Problem"}}}
      schemas:
        Count: {type: integer, minimum: 0}
        Mirror:
          type: object
          required: [name, setId, size, state, syncPercent, revision, generation, regionSize, dirtyRegions,
                     unresolvedRegions, unwrittenBytes, readPolicy, uptimeSeconds, legs, resync, scrub]
          properties:
            name: {type: string}
            setId: {type: string}
            size: {$ref: "#/components/schemas/Count"}
            state: {enum: [healthy, syncing, degraded, failed]}
            syncPercent: {type: number, minimum: 0, maximum: 100}
            revision:
              allOf: [{$ref: "#/components/schemas/Count"}]
              description: Another number whenever legs, states or options are others. Counters do not count.
            generation: {$ref: "#/components/schemas/Count"}
            regionSize: {$ref: "#/components/schemas/Count"}
            dirtyRegions: {$ref: "#/components/schemas/Count"}
            unresolvedRegions: {$ref: "#/components/schemas/Count"}
            unwrittenBytes: {$ref: "#/components/schemas/Count"}
            readPolicy: {type: string}
            uptimeSeconds: {$ref: "#/components/schemas/Count"}
            legs: {type: array, maxItems: 8, items: {$ref: "#/components/schemas/Leg"}}
            resync: {$ref: "#/components/schemas/Copying"}
            scrub:
              type: object
              required: [mode, running, bytesDone, mismatches]
        Leg:
          type: object
          required: [slot, id, path, state, staleBytes, readErrors, writeErrors, repairedBlocks, replaces,
                     writeMostly, cache, unusedBytes, latency]
          properties:
            slot: {type: integer, minimum: 0, maximum: 7}
            id: {type: string}
            path: {type: string}
            state: {enum: [in-sync, syncing, failed, missing, removed, spare]}
            staleBytes: {$ref: "#/components/schemas/Count"}
            readErrors: {$ref: "#/components/schemas/Count"}
            writeErrors: {$ref: "#/components/schemas/Count"}
            repairedBlocks: {$ref: "#/components/schemas/Count"}
            replaces: {type: [integer, "null"]}
            writeMostly: {type: boolean}
            cache: {enum: [direct, buffered, null]}
            unusedBytes: {type: [integer, "null"]}
            latency: {type: object, required: [read, write]}
        Copying:
          type: object
          required: [running, paused, bytesDone, bytesTotal, bytesPerSecond, etaSeconds, minBytesPerSecond,
                     maxBytesPerSecond]
          properties:
            running: {type: boolean}
            paused: {type: boolean}
            bytesDone: {$ref: "#/components/schemas/Count"}
            bytesTotal: {$ref: "#/components/schemas/Count"}
            bytesPerSecond: {$ref: "#/components/schemas/Count"}
            etaSeconds: {type: [integer, "null"]}
            minBytesPerSecond: {$ref: "#/components/schemas/Count"}
            maxBytesPerSecond: {type: [integer, "null"]}
        Resync:
          allOf:
            - {$ref: "#/components/schemas/Copying"}
            - {type: object, required: [zeroBytes, unreadable, unreadableRanges]}
        Scrub:
          type: object
          required: [mode, running, complete, bytesDone, bytesTotal, bytesSkipped, bytesPerSecond,
                     etaSeconds, mismatches, mismatchBytes, unrepairedBytes, readErrors, ranges]
          properties:
            mode: {enum: [check, repair, null]}
            running: {type: boolean}
            complete: {type: boolean}
            ranges: {type: array, items: {type: object, required: [offset, bytes, legs]}}
        Connection:
          type: object
          required: [number, transport, phase, reactor, structuredReplies, tls, requestsInFlight,
                     requests, readBytes, writtenBytes]
          properties:
            transport: {enum: [unix, tcp]}
            phase: {enum: [handshake, transmission]}
            tls: {type: boolean}
        RegionMap:
          type: object
          required: [regions, regionsPerCell, map]
          properties:
            regions: {$ref: "#/components/schemas/Count"}
            regionsPerCell: {type: integer, minimum: 1}
            map: {type: string, maxLength: 512, pattern: "^[_.w?S]*$"}
        Fault:
          type: object
          required: [name, leg, kind, words, state, matched, fired, badBytes]
          properties:
            state: {enum: [armed, spent, expired, released]}
        Event:
          type: object
          required: [sequence, time, kind, message]
        Problem:
          type: object
          required: [type, title, status, detail, code]
          properties:
            status: {type: integer, minimum: 400, maximum: 599}

    """#
}
