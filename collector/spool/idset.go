package spool

// idSet tells which ids a segment may have, by 32 bits of their hashes: it says yes to all that
// were added, and to one in some millions of others. It takes 5 to 11 bytes an id.
type idSet struct {
	slots []uint32 // open addressing; 0 is empty
	n     int
}

// add reports whether it was not there.
func (s *idSet) add(hash uint64) bool {
	if hash == 0 {
		return false
	}
	if 4*(s.n+1) > 3*len(s.slots) {
		old := s.slots
		s.slots = make([]uint32, max(16, 2*len(old)))
		for _, v := range old {
			if v != 0 {
				s.slots[s.place(v)] = v
			}
		}
	}
	at := s.place(part(hash))
	if s.slots[at] != 0 {
		return false
	}
	s.slots[at] = part(hash)
	s.n++
	return true
}

func (s *idSet) has(hash uint64) bool {
	return len(s.slots) > 0 && s.slots[s.place(part(hash))] != 0
}

// place is where v is, or is to be put.
func (s *idSet) place(v uint32) int {
	last := uint32(len(s.slots) - 1)
	at := v & last
	for s.slots[at] != 0 && s.slots[at] != v {
		at = (at + 1) & last
	}
	return int(at)
}

// part is what is kept of a hash, never 0.
func part(hash uint64) uint32 { return max(1, uint32(hash>>32)) }
