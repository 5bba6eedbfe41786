package keys

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// keySize is the size of every key: AES-256.
const keySize = 32

// Source says where the key-encryption key comes from: exactly one of a file, an
// environment variable and a command. It is 32 bytes, in hexadecimal or base64.
type Source struct {
	File string
	Env  string
	// Command is a program and its arguments, which prints the key. No shell reads
	// it.
	Command []string
}

// Bounds of a key command.
const (
	commandTime   = 15 * time.Second
	commandOutput = 4096
)

// Validate reports what is wrong with where the key should come from.
func (s Source) Validate() error {
	n := 0
	for _, given := range []bool{s.File != "", s.Env != "", len(s.Command) > 0} {
		if given {
			n++
		}
	}
	if n > 1 {
		return errors.New("names more than one of file, env and command")
	}
	if len(s.Command) > 0 && s.Command[0] == "" {
		return errors.New("command names no program")
	}
	return nil
}

// Key fetches the key-encryption key.
func (s Source) Key(ctx context.Context) ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("get the key-encryption key: %w", err)
	}
	var text []byte
	var err error
	switch {
	case s.File != "":
		text, err = readBounded(s.File)
	case s.Env != "":
		value, ok := os.LookupEnv(s.Env)
		if !ok {
			err = fmt.Errorf("the environment has no %s", s.Env)
		}
		text = []byte(value)
	case len(s.Command) > 0:
		text, err = s.run(ctx)
	default:
		return nil, ErrNoSource
	}
	if err != nil {
		return nil, fmt.Errorf("get the key-encryption key: %w", err)
	}
	key, ok := parseKey(string(text))
	if !ok {
		return nil, errors.New("get the key-encryption key: what came is not 32 bytes in hexadecimal or base64")
	}
	return key, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, commandOutput)
	n, err := f.Read(b)
	if n == 0 && err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	return b[:n], nil
}

func parseKey(text string) ([]byte, bool) {
	text = strings.TrimSpace(text)
	if key, err := hex.DecodeString(text); err == nil && len(key) == keySize {
		return key, true
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if key, err := enc.DecodeString(text); err == nil && len(key) == keySize {
			return key, true
		}
	}
	return nil, false
}

// bounded takes the first bytes of an output and refuses more.
type bounded struct {
	b    bytes.Buffer
	max  int
	over bool
}

var errTooLong = errors.New("it printed too much")

func (w *bounded) Write(p []byte) (int, error) {
	if w.b.Len()+len(p) > w.max {
		w.over = true // the program may die of it and tell another story
		return 0, errTooLong
	}
	return w.b.Write(p)
}

// run has the command print the key. What it prints is never repeated, to either
// output.
func (s Source) run(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.Command[0], s.Command[1:]...) //nolint:gosec // the operator's own configuration
	out := &bounded{max: commandOutput}
	cmd.Stdout = out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("the command %q did not end in %s", s.Command[0], commandTime)
	case out.over:
		return nil, fmt.Errorf("the command %q printed more than %d bytes", s.Command[0], commandOutput)
	case errors.As(err, &exit):
		return nil, fmt.Errorf("the command %q failed: %s", s.Command[0], exit.ProcessState)
	case err != nil:
		return nil, fmt.Errorf("run the command %q: %w", s.Command[0], err)
	}
	return out.b.Bytes(), nil
}
