//go:build !linux

package vfs

import (
	"errors"
	"math"
	"syscall"
)

// Reserve does nothing here: writes find out that the disk is full.
func (osFile) Reserve(int64) error { return nil }

// Free does not know the free space here.
func (OS) Free(string) (uint64, error) { return math.MaxInt64, nil }

// IsFull reports whether err says that the disk has no room.
func IsFull(err error) bool { return errors.Is(err, syscall.ENOSPC) }
