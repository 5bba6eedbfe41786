// Package proxy is the data plane: it takes inference requests over HTTP, has
// the model (in this process, or an upstream server) answer them, has each
// prediction captured, and only then sends the answer.
//
// It owns the routes of the Open Inference Protocol v2, of KServe v1 and of
// /api/v1/predictions and /api/v1/feedback; the limits put on a request; the
// mapping of errors to status codes; the server span and the request metrics. It
// never stores anything itself, never waits for the database, and knows nothing
// of how models are loaded or explained: those are func fields of Config that
// cmd fills.
//
// Invariants:
//   - A 200 leaves only after Capture has returned nil for it.
//   - A request that names a known model and fails is captured as one failed
//     row, except where it was shed before its body was read or where the capture
//     itself failed. A failure to capture it never hides the first error.
//   - No error text that is stored or logged holds a value of a request; what an
//     upstream wrote goes to its client only.
//   - Every failure is answered with {"error": "..."} as application/json.
package proxy
