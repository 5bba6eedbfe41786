// Package oip is the codec of the Open Inference Protocol v2 over REST, with its
// binary tensor extension, and of the older KServe v1 form: bytes to tensors and
// tensors to bytes.
//
// It is pure: it owns no connection, no clock and no goroutine, and knows no
// model beyond the specs handed to it. What a request means to a model is
// engine.Bind's business, not this package's.
//
// Invariants: a decoder allocates in proportion to the bytes it was given,
// whatever shapes they claim; numbers are exact or refused (no integer is
// wrapped, no float overflows to infinity); nothing decoded aliases the body, so
// the body's buffer may be used again; an error never holds a value of the
// request, only names, types, counts and byte offsets.
package oip
