//go:build !linux

package spool

import (
	"errors"
	"math"
	"syscall"
)

// Reserve does nothing here: writes find out that the disk is full.
func (osFile) Reserve(int64) error { return nil }

// Free does not know the free space here, so the low-water mark never holds.
func (osFS) Free(string) (uint64, error) { return math.MaxInt64, nil }

// isFull reports whether err says that the disk has no room.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) }
