package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// Head is the end of the chain at some time.
type Head struct {
	Seq  uint64    `json:"seq"`
	MAC  string    `json:"mac"`
	Time time.Time `json:"time"`
}

// headName is the head in the folder itself: it shows a tail that was lost, though
// not to somebody who cuts both.
const headName = "head"

// writeHead replaces the folder's head.
func writeHead(path string, h Head) error {
	b, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("write the audit head: %w", err)
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write the audit head: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("write the audit head: %w", err)
	}
	return nil
}

// appendHead adds a head to the file elsewhere, where earlier ones stay: a history
// that was written anew has to fit all of them.
func appendHead(path string, h Head) error {
	b, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("export the audit head: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("export the audit head: %w", err)
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		if _, err = f.Write(append(b, '\n')); err != nil {
			err = errors.Join(err, f.Truncate(end)) // a full disk takes part of a line
		}
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("export the audit head: %w", err)
	}
	return nil
}

// ReadHeads reads the heads of a file, one a line; a file that is not there has
// none. A last line without an end may be on its way and is left out.
func ReadHeads(path string) ([]Head, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read audit heads: %w", err)
	}
	defer f.Close()
	var out []Head
	r := bufio.NewReaderSize(f, maxLine)
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read audit heads of %q: %w", path, err)
		}
		var h Head
		if err := json.Unmarshal(line, &h); err != nil || h.Seq == 0 {
			return nil, fmt.Errorf("read audit heads of %q: line %d is not one", path, len(out)+1)
		}
		if _, err := parseMAC(h.MAC); err != nil {
			return nil, fmt.Errorf("read audit heads of %q: line %d has no MAC", path, len(out)+1)
		}
		out = append(out, h)
	}
}
