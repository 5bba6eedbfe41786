package collector

import (
	"strconv"
	"strings"
)

// Ref names stored predictions: one by its id, the rows of a request by the request's,
// or those of a trace (TracePrefix before its id). An id that was made elsewhere may be
// one in several models: Model, if given, says in which.
type Ref struct{ Tenant, Model, ID string }

// TracePrefix begins an id that is a trace's.
const TracePrefix = "trace:"

// SplitID takes an id of the form "<request>.<row>" apart. oneRow is false, and
// request the whole id, where it names a request and no row of it.
func SplitID(id string) (request string, row int, oneRow bool) {
	at := strings.LastIndexByte(id, '.')
	if at <= 0 {
		return id, 0, false
	}
	n, err := strconv.ParseUint(id[at+1:], 10, 31)
	if err != nil || strconv.FormatUint(n, 10) != id[at+1:] {
		return id, 0, false
	}
	return id[:at], int(n), true
}

// OwnID reports whether an id has the form of ours, a UUID, with a row or without. One that a
// sender chose may name a person, and does not stand where an erasure does not look for it.
func OwnID(id string) bool {
	base, _, _ := SplitID(id)
	if len(base) != 36 {
		return false
	}
	for i, c := range []byte(base) {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return true
}
