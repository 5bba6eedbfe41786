package main

import (
	"errors"
	"fmt"

	"github.com/pellucid/pellucid/collector"
)

// errPanic is what a panic becomes at a command's boundary.
var errPanic = errors.New("internal error, a fault of pellucid's")

// guarded runs f and turns a panic into an error that says where it was, so that a file
// which finds a fault of ours ends that case or command, and what it has begun is undone.
func guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			// A panic may quote a row, and what a command says of a fault is not for its rows.
			kind, stack := collector.Panicked(r)
			err = fmt.Errorf("%w: panic at %s: %s", errPanic, stack[0], kind)
		}
	}()
	return f()
}
