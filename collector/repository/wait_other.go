//go:build !unix

package repository

func (u unwaited) Read(p []byte) (int, error) { return u.f.Read(p) }
