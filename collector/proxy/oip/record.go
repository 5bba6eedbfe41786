package oip

import (
	"fmt"
	"io"

	"github.com/pellucid/pellucid/engine"
)

// Own is a text of ours in an error: a word of the program, or a name of the
// model.
type Own string

// Number is a number of ours in an error: a limit, or a place in the request.
type Number int64

// Record formats a message for keeping. What is neither Own, Number, a data type
// nor the Record of another RequestError came with a request, may be private and
// is left out: a client chooses names, shapes and unknown words freely.
func Record(format string, args ...any) string {
	kept := make([]any, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case Own, Number, engine.DType:
			kept[i] = a
		case *RequestError:
			kept[i] = a.Record()
		default:
			kept[i] = omitted{}
		}
	}
	return fmt.Sprintf(format, kept...)
}

// omitted stands for what is left out, whatever verb it is formatted with.
type omitted struct{}

// Format implements fmt.Formatter.
func (omitted) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "...") // the state is a buffer, which takes everything
}
