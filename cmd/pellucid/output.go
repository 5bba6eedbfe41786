package main

import (
	"bufio"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// writeTo runs write on the file at path, or on standard output when path is empty. A
// file is there whole or is what it was before; what is no file (a device, a pipe) is
// written to and left in its place.
func writeTo(path string, stdout io.Writer, write func(io.Writer) error) error {
	if path == "" {
		b := bufio.NewWriter(stdout)
		return errors.Join(guarded(func() error { return write(b) }), b.Flush())
	}
	f, finish, err := openOutput(path)
	if err != nil {
		return err
	}
	b := bufio.NewWriter(f)
	return finish(errors.Join(guarded(func() error { return write(b) }), b.Flush()))
}

// writeWhole writes data as writeTo does.
func writeWhole(path string, data []byte) error {
	return writeTo(path, nil, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// openOutput opens what is to become the file at path: finish puts it there, or takes it
// away after an error.
func openOutput(path string) (f *os.File, finish func(error) error, err error) {
	st, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	there := err == nil
	if there && !st.Mode().IsRegular() {
		return inPlace(path, 0)
	}
	if there {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, nil, err
		}
	}
	temp := filepath.Join(filepath.Dir(path), ".pellucid-"+rand.Text()+filepath.Ext(path))
	f, err = os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if there && errors.Is(err, fs.ErrPermission) {
		return inPlace(path, os.O_TRUNC) // its folder may not be written to
	}
	if err != nil {
		return nil, nil, err
	}
	return f, func(err error) error {
		if there && err == nil {
			err = f.Chmod(st.Mode().Perm())
		}
		if err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err == nil {
			err = os.Rename(temp, path)
		}
		if err != nil {
			return errors.Join(err, os.Remove(temp))
		}
		return nil
	}, nil
}

func inPlace(path string, flags int) (*os.File, func(error) error, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0)
	if err != nil {
		return nil, nil, err
	}
	return f, func(err error) error { return errors.Join(err, f.Close()) }, nil
}
