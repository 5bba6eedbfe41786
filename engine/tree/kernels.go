package tree

import "math/bits"

// wideRows is how many rows the wide path takes through all trees together: a
// register of 512 bits has one for each.
const wideRows = 512

// maxExits bounds the leaves of a tree on the wide path, where all of a tree's
// conditions are decided: beyond about as many, walking is as fast.
const maxExits = 1024

// plane has one bit a row.
type plane = Plane

// test is an inner node of a tree on the wide path. Rows whose bin in the column
// is below bound go to the slot below, the others to the slot above. Slots from
// 0 on are inner nodes, which come before their children; slots from maxExits on
// are leaves, in order.
type test struct {
	column       uint32 // offset of the column's bins
	bound        uint8
	below, above uint16
}

// exitSpace is what one tree needs on the way: the planes of its conditions, and
// of the rows that reach its nodes and leaves.
type exitSpace struct {
	conditions [maxExits]plane
	reach      [2 * maxExits]plane
}

// conditionsGo sets planes[i] to the rows that are below in tests[i], of the
// first words*64. A column of bins is wideRows long.
func conditionsGo(planes []plane, bins []byte, tests []test, words int) {
	for i, t := range tests {
		column := bins[t.column:][:words*64]
		for w := range words {
			var word uint64
			for r, b := range column[w*64:][:64] {
				_, below := bits.Sub64(uint64(b), uint64(t.bound), 0)
				word |= below << r
			}
			planes[i][w] = word
		}
	}
}

// exitsGo leads words*64 rows down the tree and leaves in s.conditions[b] those whose
// leaf has bit b in its number. s.conditions holds the tests' planes, and the reach
// of leaves that the tree does not have, up to 1<<bits, is empty. Both are used up.
func exitsGo(s *exitSpace, tests []test, bits, words int) {
	for w := range words {
		s.reach[0][w] = ^uint64(0)
		for i, t := range tests {
			reach, below := s.reach[i][w], s.conditions[i][w]
			s.reach[t.below][w] = reach & below
			s.reach[t.above][w] = reach &^ below
		}
		for b := range bits {
			var word uint64
			for leaf := range 1 << bits {
				word |= s.reach[maxExits+leaf][w] & -uint64(leaf>>b&1)
			}
			s.conditions[b][w] = word
		}
	}
}

// numbersGo sets each of words*64 bytes to the row's bits of the planes, at most
// eight.
func numbersGo(exit *[wideRows]byte, planes []plane, words int) {
	for w := range words {
		for r := range 64 {
			var number byte
			for b := range planes {
				number |= byte(planes[b][w]>>r&1) << b
			}
			exit[w*64+r] = number
		}
	}
}
