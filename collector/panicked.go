package collector

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"

	"github.com/pellucid/pellucid/engine/crew"
)

// Panicked tells of a panic what holds no value that somebody sent: its kind and where it
// was, the innermost function first. A text may quote a value, an index may be made of one,
// and so may the words of the arguments that the runtime's own trace of a stack has. It is
// for deferred functions, which have recovered r.
func Panicked(r any) (kind string, stack []string) {
	var at [64]uintptr
	callers := at[:runtime.Callers(2, at[:])]
	if of, ok := r.(*crew.Failed); ok { // the caller of the crew is not where it was
		r, callers = of.Value, of.At
	}
	frames := runtime.CallersFrames(callers)
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		switch {
		case f.Function == "runtime.gopanic": // what came before is the recovery
			stack = nil
		case len(stack) > 0 || !strings.HasPrefix(f.Function, "runtime."):
			stack = append(stack, fmt.Sprintf("%s (%s:%d)", f.Function, filepath.Base(f.File), f.Line))
		}
	}
	return panicKind(r), stack
}

// panicKind is the runtime's word for its own errors, up to where it begins to count, and
// the type of anything else: which text it was the line of the stack says.
func panicKind(r any) string {
	err, ok := r.(runtime.Error)
	if !ok || !ofRuntime(err) {
		return fmt.Sprintf("a value of type %T", r)
	}
	var types *runtime.TypeAssertionError
	if errors.As(err, &types) {
		return types.Error() // types and methods only
	}
	text := err.Error()
	if at := strings.IndexAny(text, "[0123456789"); at >= 0 {
		text = text[:at]
	}
	return strings.TrimSpace(text)
}

func ofRuntime(err error) bool {
	t := reflect.TypeOf(err)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.PkgPath() == "runtime"
}
