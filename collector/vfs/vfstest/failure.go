package vfstest

// Failure counts the operations of a file system and has some of them fail.
type Failure struct {
	fs   *FS
	k, n int
	what string
}

// FailAt has the k-th operation from now on fail with err, or, forGood, it and all that
// follow; with a nil err none does. It takes the place of Fail.
func (m *FS) FailAt(k int, forGood bool, err error) *Failure {
	f := &Failure{fs: m, k: k}
	m.Fail = func(op, name string) error {
		f.n++
		if f.n == k {
			f.what = op + " " + name
		}
		if f.n == k || f.n > k && forGood {
			return err
		}
		return nil
	}
	return f
}

// Came reports whether there were so many operations, and what the k-th was.
func (f *Failure) Came() (what string, came bool) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.what, f.n >= f.k
}
