package vfstest

import (
	"bytes"
	"maps"
	"path/filepath"
	"slices"
)

// After returns what the next start finds, with the same properties and neither a crash nor
// failures to come. After the death of a process that is everything written, synced or not;
// after a power cut it is what was synced, and any part of the rest.
func (m *FS) After(power bool) *FS {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := New(m.rng.Uint64())
	next.CountReads, next.Refuses, next.Unforgiving, next.Journal = m.CountReads, m.Refuses, m.Unforgiving, m.Journal
	next.Capacity, next.ModTime = m.Capacity, m.ModTime
	copies := map[*inode]*inode{nil: nil}
	keep := func(to map[string]*inode, n string, i *inode) {
		if _, ok := copies[i]; !ok {
			c := i.clone()
			if power {
				c.data = m.survived(i)
				c.synced, c.lost, c.from, c.to = bytes.Clone(c.data), nil, 0, 0
			}
			c.failed = false // nobody knows any more
			copies[i] = c
		}
		to[n] = copies[i]
	}
	names, durable := m.now, m.durable
	if power {
		names = m.left()
		durable = names
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		keep(next.now, n, names[n])
	}
	for _, n := range slices.Sorted(maps.Keys(durable)) {
		keep(next.durable, n, durable[n])
	}
	return next
}

// left is which names a power cut leaves: those that were synced, and of what came after
// that what chance has it.
func (m *FS) left() map[string]*inode {
	names, chosen := map[string]*inode{}, map[*inode]bool{}
	choose := func(n string, i *inode) {
		names[n] = i
		chosen[i] = true
	}
	for _, n := range slices.Sorted(maps.Keys(m.durable)) {
		i := m.durable[n]
		at, ok := m.now[n]
		switch {
		case ok && at != i && m.rng.IntN(2) == 0:
			choose(n, at) // to put a file in another's place is all done or not at all
		case ok || m.rng.IntN(2) == 0:
			choose(n, i)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(m.now)) {
		if _, ok := m.durable[n]; !ok && m.rng.IntN(2) == 0 {
			choose(n, m.now[n])
		}
	}
	if m.Journal {
		m.journal(names, chosen)
	}
	for n := range names {
		for dir := filepath.Dir(n); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			if _, ok := names[dir]; !ok {
				delete(names, n)
			}
		}
	}
	return names
}

// journal gives the files back that had a name, were given another, and would have none.
func (m *FS) journal(names map[string]*inode, chosen map[*inode]bool) {
	named := map[*inode]string{}
	for n, i := range m.now {
		named[i] = n
	}
	for _, n := range slices.Sorted(maps.Keys(m.durable)) {
		i := m.durable[n]
		if at, ok := named[i]; i != nil && ok && !chosen[i] {
			names[[]string{n, at}[m.rng.IntN(2)]] = i
		}
	}
}

// survived is what a power cut leaves of a file: the synced bytes, some blocks that were
// not, others as zeros or not at all.
func (m *FS) survived(i *inode) []byte {
	out := bytes.Clone(i.data)
	const block = 512
	for at := 0; at < len(out); at += block {
		written := m.rng.IntN(2) == 0
		for k := at; k < min(at+block, len(out)); k++ {
			if written && (k >= len(i.lost) || !i.lost[k]) {
				continue // this block was written back in time
			}
			out[k] = 0
			if k < len(i.synced) {
				out[k] = i.synced[k]
			}
		}
	}
	if len(out) < len(i.synced) {
		if m.rng.IntN(2) == 0 {
			return bytes.Clone(i.synced)
		}
		return out
	}
	return out[:len(i.synced)+m.rng.IntN(len(out)-len(i.synced)+1)]
}
