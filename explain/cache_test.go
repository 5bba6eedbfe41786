package explain

import (
	"errors"
	"testing"
)

type weight int64

func (w *weight) Bytes() int64 { return int64(*w) }

// TestCacheWithinItsBytes: the least recently used go, one that has grown is counted anew,
// one that is too large is not kept, and a failure is forgotten.
func TestCacheWithinItsBytes(t *testing.T) {
	c := newCache(100)
	made := map[string]int{}
	get := func(key string, bytes weight) *weight {
		t.Helper()
		v, err := load(c, key, func() (*weight, error) {
			made[key]++
			return &bytes, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	want := func(used int64, entries int, made0 map[string]int) {
		t.Helper()
		if c.used != used || len(c.entries) != entries || c.order.Len() != entries {
			t.Errorf("%d bytes of %d entries, want %d of %d", c.used, len(c.entries), used, entries)
		}
		for key, n := range made0 {
			if made[key] != n {
				t.Errorf("%q was made %d times, want %d", key, made[key], n)
			}
		}
	}
	get("a", 40)
	get("b", 50)
	want(90, 2, nil)
	get("a", 40)
	get("c", 20) // b was used before a
	want(60, 2, map[string]int{"a": 1, "c": 1})
	get("b", 50) // a goes
	want(70, 2, map[string]int{"b": 2})
	a := get("a", 40)
	want(90, 2, map[string]int{"a": 2})
	*a = 70
	get("a", 40) // it has grown: b goes
	want(70, 1, map[string]int{"a": 2})
	get("large", 101)
	want(0, 0, nil)
	if _, err := load(c, "bad", func() (*weight, error) { return nil, errors.New("no") }); err == nil {
		t.Error("no error")
	}
	want(0, 0, nil)
}
