package oip

// CheckUnique is Check, and also refuses a key that is twice in one object: which
// of the two is meant cannot be known.
func CheckUnique(body []byte) error {
	s := scanner{b: body}
	if err := s.unique(0); err != nil {
		return err
	}
	return s.end()
}

// unique is skip with an eye on keys.
func (s *scanner) unique(depth int) error {
	if depth > maxDepth {
		return s.fault("nested too deep")
	}
	switch s.peek() {
	case '{':
		seen := map[string]struct{}{}
		return s.object(func(key string) error {
			if _, dup := seen[key]; dup {
				return refuse("the key %q is there twice", clip(key))
			}
			seen[key] = struct{}{}
			return s.unique(depth + 1)
		})
	case '[':
		return s.list(func(int) error { return s.unique(depth + 1) })
	}
	return s.skip(depth)
}

// Object calls field with every key of a JSON object and the bytes of its value.
// It reports whether body is an object at all.
func Object(body []byte, field func(key string, value []byte) error) (bool, error) {
	s := scanner{b: body}
	if s.peek() != '{' {
		return false, nil
	}
	return true, s.object(func(key string) error {
		value, err := s.raw()
		if err != nil {
			return err
		}
		return field(key, value)
	})
}
