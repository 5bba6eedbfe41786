package clickhouse

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"

	ch "github.com/ClickHouse/clickhouse-go/v2"
)

// dataCodes are the server's errors that say: these values, not this statement.
// Everything else (unknown tables and columns, rights, readonly, limits, space) is
// for waiting. Numbers and names are of ClickHouse's own list of error codes.
var dataCodes = map[int32]string{
	6: "CANNOT_PARSE_TEXT", 19: "SIZE_OF_FIXED_STRING_DOESNT_MATCH", 26: "CANNOT_PARSE_QUOTED_STRING", 27: "CANNOT_PARSE_INPUT_ASSERTION_FAILED",
	38: "CANNOT_PARSE_DATE", 41: "CANNOT_PARSE_DATETIME", 53: "TYPE_MISMATCH", 69: "ARGUMENT_OUT_OF_BOUND", 70: "CANNOT_CONVERT_TYPE",
	72: "CANNOT_PARSE_NUMBER", 117: "INCORRECT_DATA", 128: "TOO_LARGE_ARRAY_SIZE", 131: "TOO_LARGE_STRING_SIZE", 135: "ZERO_ARRAY_OR_TUPLE_INDEX",
	153: "ILLEGAL_DIVISION", 190: "SIZES_OF_ARRAYS_DOESNT_MATCH", 321: "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE", 349: "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN",
	376: "CANNOT_PARSE_UUID", 395: "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO", 407: "DECIMAL_OVERFLOW", 441: "CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING",
	467: "CANNOT_PARSE_BOOL", 469: "VIOLATED_CONSTRAINT",
}

// codeUnencodable is our own number for a value that the driver cannot send.
const codeUnencodable = -1

// refusal is an insert that was refused for what is in it. Its text has names only:
// the server's message quotes values, which may be private.
type refusal struct {
	code         int
	name, detail string
	// row is the one of the statement that is refused, from 1 on, by a constraint of table; 0
	// where the server does not tell.
	row   int
	table string
}

// Error names the refusal.
func (r *refusal) Error() string {
	text := fmt.Sprintf("the store refuses the data: %s (%d)", r.name, r.code)
	if r.detail != "" {
		text += ", constraint " + r.detail
	}
	return text
}

// unencodable marks a row that the driver cannot turn into a column's type.
type unencodable struct{ error }

func (e unencodable) Unwrap() error { return e.error }

var (
	constraintName = regexp.MustCompile("^Constraint `?([^`]{1,200}?)`? for table")
	constraintRow  = regexp.MustCompile(`^Constraint .{1,300}? for table [^ ]{1,300}\.([a-z0-9_]{1,64})(?: \([0-9a-f-]{36}\))? is violated at row ([0-9]{1,9})\.`)
)

// refused returns err as a refusal, or nil where it is something else.
func refused(err error) *refusal {
	var row unencodable
	if errors.As(err, &row) {
		return &refusal{code: codeUnencodable, name: "CANNOT_ENCODE_ROW"}
	}
	var ex *ch.Exception
	if !errors.As(err, &ex) || dataCodes[ex.Code] == "" {
		return nil
	}
	r := &refusal{code: int(ex.Code), name: dataCodes[ex.Code]}
	if m := constraintName.FindStringSubmatch(ex.Message); m != nil {
		r.detail = m[1]
	}
	if m := constraintRow.FindStringSubmatch(ex.Message); m != nil {
		r.table = m[1]
		r.row, _ = strconv.Atoi(m[2]) // nine digits at most
	}
	return r
}
