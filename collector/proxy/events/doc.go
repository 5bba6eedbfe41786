// Package events makes predictions of the CloudEvents that payload loggers send:
// KServe's and Seldon's, a request and a response apart, each over HTTP in binary,
// structured or batch mode.
//
// A half waits in the Room until the other comes. It is acknowledged when it is in
// a file, so that it survives kill -9 as a prediction does: after a restart it waits
// on. Two halves are one prediction a row, recorded before the first's file is
// deleted; what a crash between the two leaves is recorded again under the same id,
// which is a duplicate. A half whose other does not come is recorded alone. All rows
// of a pair are recorded alike, whatever interrupts it (pair.go). Files are
// encrypted, because what a half holds may be private, which is known only when its
// model is.
//
// What the events say becomes:
//
//	id of the prediction   Seldon's requestid, else the event's id; .<row> where there are several
//	model                  <inferenceservicename>, after <namespace>. unless that is "default" or absent, before
//	                       -<component> unless that is "predictor" (KServe) or .<modelid> (Seldon); characters
//	                       that a model's name cannot have are _
//	version                endpoint; 1 for "default" or none
//	event time             time of the request's event
//	trace                  the extension traceparent
//
// Of Seldon's feedback the truth is a label of the prediction, named by response.meta.puid,
// request.meta.puid or the requestid; of its row .<row> where there are several. What was
// asked, answered and rewarded is left.
//
// Payloads are of KServe v1 (instances, predictions), the Open Inference Protocol in
// JSON (inputs, outputs) or Seldon's (data: ndarray or tensor, names). A feature
// without a name has that of the known version's at its place, else f0, f1, ...
package events
