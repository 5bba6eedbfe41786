package engine

import (
	"runtime"
	"sync"
	"weak"
)

// manyNames are so many categories that a request, however few its rows, is not to read all of
// them: neither one after the other nor to make a map.
const manyNames = 128

// categoryIndex finds the codes of one feature of many categories, for as long as there is
// the list of their names, which nobody changes.
type categoryIndex struct {
	names       map[string]float64
	takesValues bool

	once   sync.Once
	values map[float64]float64
}

// listOf is a list of names, by where it lies: it is not kept for being known.
type listOf struct {
	first weak.Pointer[string]
	n     int
}

// indexes holds a *categoryIndex for each listOf that was asked for.
var indexes sync.Map

// indexOf is the index of a feature with many categories, made at the first request, else nil.
func indexOf(f *Feature) *categoryIndex {
	if len(f.Categories) < manyNames {
		return nil
	}
	first := &f.Categories[0]
	key := listOf{first: weak.Make(first), n: len(f.Categories)}
	if x, ok := indexes.Load(key); ok {
		return x.(*categoryIndex)
	}
	x := &categoryIndex{names: make(map[string]float64, len(f.Categories)), takesValues: takesValues(f)}
	for i, name := range f.Categories {
		x.names[name] = float64(i)
	}
	if other, known := indexes.LoadOrStore(key, x); known {
		return other.(*categoryIndex)
	}
	runtime.AddCleanup(first, func(key listOf) { indexes.Delete(key) }, key)
	return x
}

// byValue is valuesOf those names, made once.
func (x *categoryIndex) byValue(names []string) map[float64]float64 {
	x.once.Do(func() { x.values = valuesOf(names) })
	return x.values
}
