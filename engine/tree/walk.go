package tree

import "math/bits"

// levelsPerCheck is how many levels the kernels descend before they look whether
// every lane has come to a leaf; deep, unbalanced trees end early that way.
const levelsPerCheck = 6

// walk descends lanes walks at once, walk l from split at[l] over the row that
// starts at x[base[l]], and leaves the leaves' indexes in at. No value may be NaN.
func walk[K key](splits []split[K], x []K, base, at *[lanes]int32, depth int32) {
	i0, i1, i2, i3 := at[0], at[1], at[2], at[3]
	i4, i5, i6, i7 := at[4], at[5], at[6], at[7]
	for depth > 0 {
		for range min(depth, levelsPerCheck) {
			i0 = next(splits, x, base[0], i0)
			i1 = next(splits, x, base[1], i1)
			i2 = next(splits, x, base[2], i2)
			i3 = next(splits, x, base[3], i3)
			i4 = next(splits, x, base[4], i4)
			i5 = next(splits, x, base[5], i5)
			i6 = next(splits, x, base[6], i6)
			i7 = next(splits, x, base[7], i7)
		}
		depth -= levelsPerCheck
		if splits[i0].next == i0 && splits[i1].next == i1 && splits[i2].next == i2 && splits[i3].next == i3 &&
			splits[i4].next == i4 && splits[i5].next == i5 && splits[i6].next == i6 && splits[i7].next == i7 {
			break
		}
	}
	at[0], at[1], at[2], at[3] = i0, i1, i2, i3
	at[4], at[5], at[6], at[7] = i4, i5, i6, i7
}

func next[K key](splits []split[K], x []K, base, i int32) int32 {
	s := &splits[i]
	_, below := bits.Sub64(uint64(x[base+int32(s.column>>1)]), uint64(s.threshold), 0)
	return s.next + int32(below)
}

// walkMissing is walk where values may be NaN.
func walkMissing[K key](splits []split[K], x []K, base, at *[lanes]int32, depth int32) {
	i0, i1, i2, i3 := at[0], at[1], at[2], at[3]
	i4, i5, i6, i7 := at[4], at[5], at[6], at[7]
	for depth > 0 {
		for range min(depth, levelsPerCheck) {
			i0 = nextMissing(splits, x, base[0], i0)
			i1 = nextMissing(splits, x, base[1], i1)
			i2 = nextMissing(splits, x, base[2], i2)
			i3 = nextMissing(splits, x, base[3], i3)
			i4 = nextMissing(splits, x, base[4], i4)
			i5 = nextMissing(splits, x, base[5], i5)
			i6 = nextMissing(splits, x, base[6], i6)
			i7 = nextMissing(splits, x, base[7], i7)
		}
		depth -= levelsPerCheck
		if splits[i0].next == i0 && splits[i1].next == i1 && splits[i2].next == i2 && splits[i3].next == i3 &&
			splits[i4].next == i4 && splits[i5].next == i5 && splits[i6].next == i6 && splits[i7].next == i7 {
			break
		}
	}
	at[0], at[1], at[2], at[3] = i0, i1, i2, i3
	at[4], at[5], at[6], at[7] = i4, i5, i6, i7
}

func nextMissing[K key](splits []split[K], x []K, base, i int32) int32 {
	s := &splits[i]
	v := x[base+int32(s.column>>1)]
	_, below := bits.Sub64(uint64(v), uint64(s.threshold), 0)
	// The key of NaN is the largest: one more is none.
	_, notNaN := bits.Sub64(0, uint64(v+1), 0)
	return s.next + int32(below|(1-notNaN)&uint64(s.column&1))
}
