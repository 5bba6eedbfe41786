// Package rpc is the gRPC side of the data plane: the listener, the rules that hold
// for every call on it (loopback names, time, size, panics), and the services that
// proxy answers: the Open Inference Protocol (inference), recording (pellucidv1) and
// health. What another room answers is registered by cmd.
//
// It checks no prediction and records nothing itself: proxy does, by the very path
// of what comes by HTTP. The Go code of the .proto files is made by generate.sh.
package rpc
