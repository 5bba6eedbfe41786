package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
)

// errPanic is what a panic becomes at a command's boundary.
var errPanic = errors.New("internal error, a fault of pellucid's")

// guarded runs f and turns a panic into an error that says where it was, so that a file
// which finds a fault of ours ends that case or command, and what it has begun is undone.
func guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: panic at %s: %v", errPanic, panicPlace(), r)
		}
	}()
	return f()
}

// panicPlace is where our own code panicked: the frame below the runtime's.
func panicPlace() string {
	var at [64]uintptr
	frames := runtime.CallersFrames(at[:runtime.Callers(3, at[:])])
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "runtime.") {
			return fmt.Sprintf("%s (%s:%d)", f.Function, filepath.Base(f.File), f.Line)
		}
		if !more {
			return "an unknown place"
		}
	}
}
