package alerts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// The state log holds one line a change: eight hex digits of CRC-32C, a space,
// the Status as JSON, a newline. The last line of a rule counts. A torn last
// line is cut off when the log is opened; a bad line before it is an error,
// because what follows cannot be trusted. When it has grown, the log is written
// anew beside itself and renamed.
const compactBytes = 8 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type stateLog struct {
	path string
	f    *os.File
	size int64
}

// openLog reads the log, creating it where there is none.
func openLog(path string) (*stateLog, map[string]Status, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open alert state: %w", err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read alert state %q: %w", path, err), f.Close())
	}
	states, good, err := decodeLog(data)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read alert state %q: %w", path, err), f.Close())
	}
	l := &stateLog{path: path, f: f, size: int64(good)}
	if good < len(data) {
		if err := f.Truncate(l.size); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("cut torn alert state %q: %w", path, err), f.Close())
		}
	}
	if _, err := f.Seek(l.size, io.SeekStart); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open alert state %q: %w", path, err), f.Close())
	}
	return l, states, nil
}

// decodeLog returns the states and how many bytes of data are good.
func decodeLog(data []byte) (states map[string]Status, good int, err error) {
	states = map[string]Status{}
	for good < len(data) {
		end := bytes.IndexByte(data[good:], '\n')
		if end < 0 {
			return states, good, nil // torn
		}
		s, err := decodeLine(data[good : good+end])
		last := good+end+1 == len(data)
		if err != nil && last {
			return states, good, nil // torn by a crash that kept the newline
		}
		if err != nil {
			return nil, 0, fmt.Errorf("byte %d: %w", good, err)
		}
		states[s.Rule] = s
		good += end + 1
	}
	return states, good, nil
}

func decodeLine(line []byte) (Status, error) {
	var s Status
	if len(line) < 10 || line[8] != ' ' {
		return s, errors.New("not a line of alert state")
	}
	want, err := strconv.ParseUint(string(line[:8]), 16, 32)
	if err != nil || uint32(want) != crc32.Checksum(line[9:], castagnoli) {
		return s, errors.New("checksum does not match")
	}
	if err := json.Unmarshal(line[9:], &s); err != nil {
		return s, fmt.Errorf("decode alert state: %w", err)
	}
	return s, nil
}

func encodeLine(s Status) ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode alert state: %w", err)
	}
	line := fmt.Appendf(nil, "%08x ", crc32.Checksum(b, castagnoli))
	return append(append(line, b...), '\n'), nil
}

// append writes a status; sync makes it survive the machine.
func (l *stateLog) append(s Status, sync bool) error {
	line, err := encodeLine(s)
	if err != nil {
		return err
	}
	n, err := l.f.Write(line)
	if err != nil {
		// Cut a half-written line so that later ones stay readable.
		_, seekErr := l.f.Seek(l.size, io.SeekStart)
		return errors.Join(fmt.Errorf("write alert state %q: %w", l.path, err), l.f.Truncate(l.size), seekErr)
	}
	l.size += int64(n)
	if !sync {
		return nil
	}
	if err := l.f.Sync(); err != nil {
		return fmt.Errorf("sync alert state %q: %w", l.path, err)
	}
	return nil
}

// compact rewrites the log with one line a rule when it has grown.
func (l *stateLog) compact(states map[string]Status) error {
	if l.size < compactBytes {
		return nil
	}
	var names []string
	for name := range states {
		names = append(names, name)
	}
	slices.Sort(names)
	tmp, err := os.CreateTemp(filepath.Dir(l.path), ".alerts-*")
	if err != nil {
		return fmt.Errorf("compact alert state: %w", err)
	}
	next := &stateLog{path: l.path, f: tmp}
	for _, name := range names {
		if err := next.append(states[name], false); err != nil {
			return errors.Join(err, tmp.Close(), os.Remove(tmp.Name()))
		}
	}
	if err := errors.Join(tmp.Sync(), os.Rename(tmp.Name(), l.path)); err != nil {
		return errors.Join(fmt.Errorf("compact alert state %q: %w", l.path, err), tmp.Close(), os.Remove(tmp.Name()))
	}
	old := l.f
	l.f, l.size = next.f, next.size
	if err := old.Close(); err != nil {
		return fmt.Errorf("compact alert state %q: %w", l.path, err)
	}
	return nil
}

func (l *stateLog) close() error {
	return errors.Join(l.f.Sync(), l.f.Close())
}
