// Package marks puts what a benchmark measured into a document, between two marks of its
// own: a figure that a command wrote can be written anew by it.
package marks

import (
	"bytes"
	"errors"
	"os"
	"slices"
)

// Replace puts text between the marks of a document, the first of which ends its line.
func Replace(path, begin, end, text string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(data, []byte(begin))
	_, after, closed := bytes.Cut(rest, []byte(end))
	if !ok || !closed {
		return errors.New(path + " has no marks " + begin + " and " + end)
	}
	return os.WriteFile(path, slices.Concat(before, []byte(begin+"\n"+text+end), after), 0o644) //nolint:gosec // a document
}
