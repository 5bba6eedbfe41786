package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Report is what Verify found.
type Report struct {
	Files   int
	Entries uint64
	// First and Last are the numbers of the first and last entries that are there,
	// Head the chain's end.
	First, Last uint64
	Head        Head
	// Heads counts the exported heads that were found in the chain, Older those of
	// entries whose files have been deleted by the log itself.
	Heads, Older int
	// Unfinished are bytes at the very end without a line's end: an entry on its
	// way, or a tail that the next start will cut.
	Unfinished int64
	// Problems says what is wrong; empty means that nothing is.
	Problems []string
}

// OK reports whether nothing was changed, taken out or cut off.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

// maxProblems bounds what is told.
const maxProblems = 20

func (r *Report) problem(format string, args ...any) {
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// Verify reads the whole log of a folder and changes nothing; it takes no lock, so
// that it may run while a server writes. headFiles are files that heads were
// exported to, beside the folder's own. visit, if not nil, gets every entry that
// fits.
func Verify(dir string, key []byte, headFiles []string, visit func(*Entry)) (*Report, error) {
	v := &verifier{key: derive(key, "chain"), heads: map[uint64][]Head{}, visit: visit}
	// Heads are read first: what is appended meanwhile can only lie behind them.
	own := filepath.Join(dir, headName)
	for _, path := range append([]string{own}, headFiles...) {
		heads, err := ReadHeads(path)
		if err != nil {
			v.problem("%v", err)
		}
		if len(heads) == 0 && err == nil {
			v.problem("head file %q is missing or empty", path)
		}
		for _, h := range heads {
			v.heads[h.Seq] = append(v.heads[h.Seq], h)
		}
	}
	names, err := fileNames(dir)
	if err != nil {
		return nil, fmt.Errorf("verify the audit log: %w", err)
	}
	for i, n := range names {
		if err := v.file(dir, n, i == len(names)-1); err != nil {
			return nil, fmt.Errorf("verify the audit log: %w", err)
		}
	}
	if len(names) == 0 {
		v.problem("there is no file of entries")
	} else if names[0] > 1 && names[0] != v.dropped+1 {
		v.problem("files before %s are missing and no entry says that they were deleted", fileName(names[0]))
	}
	unreached := 0
	for seq, list := range v.heads {
		switch {
		case seq > v.Last && v.stuck:
			unreached += len(list)
		case seq > v.Last:
			v.problem("the log was cut off: it ends with entry %d, and entry %d was there at %s", v.Last, seq, list[0].Time.Format("2006-01-02T15:04:05Z"))
		case seq < v.First:
			v.Older += len(list)
		default:
			v.problem("the log was rewritten: it has no entry %d, which was there at %s", seq, list[0].Time.Format("2006-01-02T15:04:05Z"))
		}
	}
	if unreached > 0 {
		v.problem("%d heads are of entries behind entry %d, where the log can be followed no further: they are held against nothing", unreached, v.Last)
	}
	return &v.Report, nil
}

type verifier struct {
	Report
	key     []byte
	prev    mac
	dropped uint64
	// stuck says that what follows the last good entry could not be followed.
	stuck bool
	heads map[uint64][]Head
	visit func(*Entry)
}

func (v *verifier) file(dir string, number uint64, last bool) error {
	f, err := os.Open(filepath.Join(dir, fileName(number)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile; the chain tells
	}
	if err != nil {
		return err
	}
	defer f.Close()
	v.Files++
	r := bufio.NewReaderSize(f, maxLine)
	for n := 1; ; n++ {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			if n == 1 && !last {
				v.problem("%s is empty", fileName(number))
			}
			return nil
		}
		if errors.Is(err, io.EOF) && last {
			v.Unfinished = int64(len(line))
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if v.stuck = !v.line(line, number, n); v.stuck {
			return nil // nothing after it can be held against anything
		}
	}
}

// line takes the next line; it returns false where the file cannot be followed any
// further.
func (v *verifier) line(line []byte, number uint64, n int) bool {
	e, m, err := decode(v.key, v.prev, line)
	switch {
	case err != nil:
		v.problem("%s line %d: the entry after %d was changed, or others were taken out or put in before it", fileName(number), n, v.Last)
		return false
	case (e.Action == actionFile) != (n == 1), e.Action == actionFile && e.Object != fileName(number):
		v.problem("%s line %d: entry %d does not belong here", fileName(number), n, e.Seq)
		return false
	case v.First != 0 && (e.Seq != v.Last+1 || e.Prev != "" && e.Prev != v.prev.String()):
		// A file begins after what is good of the one before, so this is a file, or
		// the end of one, that is gone.
		v.problem("%s: entries between %d and %d are missing", fileName(number), v.Last, e.Seq)
	}
	if v.First == 0 {
		v.First = e.Seq
	}
	v.Entries, v.Last, v.prev = v.Entries+1, e.Seq, m
	v.Head = Head{Seq: e.Seq, MAC: m.String(), Time: e.Time}
	if e.Action == actionDamage {
		v.problem("entry %d tells of damage that a start found: %s", e.Seq, e.Object)
	}
	if e.Action == actionDrop {
		if k, ok := fileNumber(e.Object); ok {
			v.dropped = max(v.dropped, k)
		}
	}
	kept := slices.DeleteFunc(v.heads[e.Seq], func(h Head) bool { return h.MAC == v.Head.MAC })
	v.Heads += len(v.heads[e.Seq]) - len(kept)
	if delete(v.heads, e.Seq); len(kept) > 0 {
		v.problem("the log was rewritten: entry %d is not the one of %s", e.Seq, kept[0].Time.Format("2006-01-02T15:04:05Z"))
	}
	if v.visit != nil {
		v.visit(e)
	}
	return true
}

const fileSuffix = ".log"

func fileName(n uint64) string { return fmt.Sprintf("%08d"+fileSuffix, n) }

func fileNumber(name string) (uint64, bool) {
	n, err := strconv.ParseUint(strings.TrimSuffix(name, fileSuffix), 10, 64)
	return n, err == nil && n > 0 && fileName(n) == name
}

// fileNames lists the folder's files of entries, the oldest first.
func fileNames(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []uint64
	for _, e := range entries {
		if n, ok := fileNumber(e.Name()); ok {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}
