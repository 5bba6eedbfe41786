// Package pellucidv1 is the code that generate.sh makes of pellucid.proto: recording
// predictions and labels by gRPC.
package pellucidv1
