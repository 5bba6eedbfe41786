package table

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The library makes room for a list by the length that a file claims, and follows
// structs as deep as they go. skim walks Thrift's compact form first and makes no room
// at all.
const (
	maxThriftDepth = 24
	// maxStructs bounds the structs in lists, which take some hundred bytes each when
	// they are decoded, and leastStruct is how many bytes of the file one has.
	maxStructs  = 1 << 20
	leastStruct = 4
)

var errThrift = errors.New("damaged metadata")

type skim struct {
	b       []byte
	at      int
	structs int
}

// skimStruct returns how many bytes the struct at the beginning of b takes.
func skimStruct(b []byte) (int, error) {
	s := &skim{b: b}
	if err := s.fields(0); err != nil {
		return 0, err
	}
	if s.structs > len(b)/leastStruct+16 {
		return 0, fmt.Errorf("%w: %d structs in %d bytes", errThrift, s.structs, len(b))
	}
	return s.at, nil
}

func (s *skim) byte() (byte, error) {
	if s.at >= len(s.b) {
		return 0, errThrift
	}
	s.at++
	return s.b[s.at-1], nil
}

func (s *skim) varint() (uint64, error) {
	v, n := binary.Uvarint(s.b[s.at:])
	if n <= 0 {
		return 0, errThrift
	}
	s.at += n
	return v, nil
}

func (s *skim) skip(n uint64) error {
	if n > uint64(len(s.b)-s.at) {
		return errThrift
	}
	s.at += int(n)
	return nil
}

func (s *skim) fields(depth int) error {
	if depth > maxThriftDepth {
		return fmt.Errorf("%w: structs nested deeper than %d", errThrift, maxThriftDepth)
	}
	for {
		head, err := s.byte()
		if err != nil || head == 0 {
			return err
		}
		if head>>4 == 0 { // the field's number follows in full
			if _, err := s.varint(); err != nil {
				return err
			}
		}
		kind := head & 15
		if kind == 1 || kind == 2 {
			continue // a bool is in its type
		}
		if err := s.value(kind, depth); err != nil {
			return err
		}
	}
}

func (s *skim) value(kind byte, depth int) error {
	switch kind {
	case 1, 2, 3:
		return s.skip(1)
	case 4, 5, 6:
		_, err := s.varint()
		return err
	case 7:
		return s.skip(8)
	case 8:
		n, err := s.varint()
		if err != nil {
			return err
		}
		return s.skip(n)
	case 9, 10:
		return s.list(depth)
	case 12:
		return s.fields(depth + 1)
	}
	return fmt.Errorf("%w: a field of type %d", errThrift, kind)
}

func (s *skim) list(depth int) error {
	head, err := s.byte()
	if err != nil {
		return err
	}
	n, kind := uint64(head>>4), head&15
	if n == 15 {
		if n, err = s.varint(); err != nil {
			return err
		}
	}
	if n > uint64(len(s.b)-s.at) {
		return fmt.Errorf("%w: a list of %d elements in %d bytes", errThrift, n, len(s.b)-s.at)
	}
	if kind == 12 {
		if s.structs += int(n); s.structs > maxStructs {
			return fmt.Errorf("%w: more than %d structs", errThrift, maxStructs)
		}
	}
	if depth >= maxThriftDepth {
		return fmt.Errorf("%w: lists nested deeper than %d", errThrift, maxThriftDepth)
	}
	for range n {
		if err := s.value(kind, depth+1); err != nil {
			return err
		}
	}
	return nil
}
