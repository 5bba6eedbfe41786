//go:build unix

package main

import "golang.org/x/sys/unix"

// limitData has the process fail where it would have more memory that it can write to.
// Addresses alone, of which Go's runtime reserves gigabytes, are no measure.
func limitData(n uint64) error {
	return unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: n, Max: n})
}

func makePipe(path string) error { return unix.Mkfifo(path, 0o600) }
