//go:build !linux

package main

import (
	"context"
	"errors"
)

// errNoMount says that the trial could not be made here.
var errNoMount = errors.New("a disk is made and filled on Linux only")

func mayMount() (ended bool, err error) { return false, errNoMount }

func mount(string, int) error { return errNoMount }

func unmount(string) error { return errNoMount }

func (t *trial) fillAndFree(context.Context) {}
