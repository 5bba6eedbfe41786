package vfs

import (
	"errors"
	"io"
	"strings"
)

// BootIDPath is the file that tells one run of the machine from another.
const BootIDPath = "/proc/sys/kernel/random/boot_id"

// bootIDLength bounds what it says.
const bootIDLength = 40

// BootID names this run of the machine, by the file that tells it, "" where it has no name.
func BootID(disk FS, name string) string {
	f, err := disk.Open(name, true)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, bootIDLength)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	return strings.TrimSpace(string(b[:n]))
}
