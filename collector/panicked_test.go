package collector

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine/crew"
)

// quoted is an error that calls itself the runtime's.
type quoted string

func (q quoted) Error() string { return string(q) }

func (quoted) RuntimeError() {}

// TestPanickedTellsNoValue: of whatever a panic holds its kind and place are told, and
// nothing that was in it.
func TestPanickedTellsNoValue(t *testing.T) {
	secret, number := "QXCANARYQX", 7318492
	var holder any = secret
	for name, c := range map[string]struct {
		f    func()
		kind string
	}{
		"a text":      {func() { panic("no " + secret) }, "a value of type string"},
		"an error":    {func() { panic(fmt.Errorf("no %s", secret)) }, "a value of type *errors.errorString"},
		"a value":     {func() { panic(struct{ carrier string }{secret}) }, "a value of type struct { carrier string }"},
		"an index":    {func() { _ = []int{1}[number] }, "runtime error: index out of range"},
		"a cut":       {func() { _ = secret[number:] }, "runtime error: slice bounds out of range"},
		"a length":    {func() { _ = make([]byte, -number) }, "runtime error: makeslice: len out of range"},
		"an array":    {func() { _ = [4]byte([]byte(secret[:number%3])) }, "runtime error: cannot convert slice with length"},
		"no pointer":  {func() { var p *struct{ carrier string }; p.carrier = secret }, "runtime error: invalid memory address or nil pointer dereference"},
		"a type":      {func() { _ = holder.(int) }, "interface conversion: interface {} is string, not int"},
		"a map's key": {func() { _ = map[any]int{any([]string{secret}): 1} }, "runtime error: hash of unhashable type"},
		"a namesake":  {func() { panic(quoted("no " + secret)) }, "a value of type collector.quoted"},
		"of the crew": {func() { crew.Run(2, 2, func(i int) { partThatPanics(secret, i) }) }, "a value of type string"},
		"of nothing":  {func() { panic(nil) }, "panic called with nil argument"},
	} {
		kind, stack := recovered(c.f)
		if kind != c.kind {
			t.Errorf("%s: kind %q, want %q", name, kind, c.kind)
		}
		where := "panicked_test.go:"
		if !slices.ContainsFunc(stack, func(line string) bool { return strings.Contains(line, where) }) {
			t.Errorf("%s: the stack does not say where it was: %q", name, stack)
		}
		if name == "of the crew" && !strings.Contains(stack[0], "partThatPanics") {
			t.Errorf("%s: it was not at %s", name, stack[0])
		}
		if all := kind + strings.Join(stack, "\n"); strings.Contains(all, secret) || strings.Contains(all, fmt.Sprint(number)) || strings.Contains(all, "0x") || strings.HasPrefix(stack[0], "runtime.") {
			t.Errorf("%s: %s", name, all)
		}
	}
}

//go:noinline
func partThatPanics(secret string, i int) {
	if i == 1 {
		panic("no " + secret)
	}
}

func recovered(f func()) (kind string, stack []string) {
	defer func() { kind, stack = Panicked(recover()) }()
	f()
	return "", nil
}
