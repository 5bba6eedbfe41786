// Package inference is the code that generate.sh makes of inference.proto: the Open
// Inference Protocol's gRPC form.
package inference
