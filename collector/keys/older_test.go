package keys

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pellucid/pellucid/collector/vfs/vfstest"
)

// copied are the files of the folder of keys, and with the mark that too.
func copied(disk *vfstest.FS, mark bool) map[string][]byte {
	files := map[string][]byte{}
	for _, name := range disk.Names() {
		if filepath.Dir(name) == keysFolder || mark && name == markFile {
			files[name] = disk.Data(name)
		}
	}
	return files
}

// putCopy has a copy take the folder's place, and the mark's where it has one.
func putCopy(disk *vfstest.FS, files map[string][]byte) {
	disk.Drop(keysFolder)
	for name, b := range files {
		disk.Put(name, b)
	}
}

// TestAnOlderFolder: whatever was changed since a copy of the folder was made, the copy in its
// place is refused by the next start and by a check, and left as it is.
func TestAnOlderFolder(t *testing.T) {
	for what, change := range map[string]func(t *testing.T, r *Ring){
		"another subject": func(t *testing.T, r *Ring) { seal(t, r, "a", "new", "m", "f", "1") },
		"another tenant":  func(t *testing.T, r *Ring) { seal(t, r, "b", "", "m", "f", "1") },
		"rotated": func(t *testing.T, r *Ring) {
			if err := r.Rotate("a"); err != nil {
				t.Fatal(err)
			}
		},
		"wrapped again": func(t *testing.T, r *Ring) {
			if err := errors.Join(r.Rewrap(kek(2)), r.Rewrap(kek(1))); err != nil {
				t.Fatal(err)
			}
		},
		"forgotten": func(t *testing.T, r *Ring) {
			if n, err := r.Forget(t.Context(), "a", "s1"); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		},
		"forgotten, and there with another key": func(t *testing.T, r *Ring) {
			if n, err := r.Forget(t.Context(), "a", "s1"); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			seal(t, r, "a", "s1", "m", "f", "1")
		},
	} {
		for _, live := range []bool{false, true} { // whether the copy was made while in use
			t.Run(fmt.Sprint(what, live), func(t *testing.T) {
				disk := newDisk(1)
				r, _ := openMarked(t, disk)
				for i := range 7 {
					seal(t, r, "a", fmt.Sprint("s", i), "m", "f", "1")
				}
				if !live {
					closeRing(t, r)
				}
				older, backup := copied(disk, false), copied(disk, true)
				if !live {
					r, _ = openMarked(t, disk)
				}
				change(t, r)
				one := seal(t, r, "a", "s2", "m", "f", "2")
				closeRing(t, r)
				newer := copied(disk, true)

				putCopy(disk, older)
				before := copied(disk, true)
				_, err := open(Config{Dir: keysFolder, KEK: kek(1), Mark: markFile}, disk)
				if !errors.Is(err, errOlder) || !strings.Contains(err.Error(), "remove "+markFile) {
					t.Errorf("opened: %v", err)
				}
				if _, err := check(Config{Dir: keysFolder, Mark: markFile}, disk); !errors.Is(err, errOlder) {
					t.Errorf("checked: %v", err)
				}
				if !maps.EqualFunc(before, copied(disk, true), bytes.Equal) || disk.Locked() {
					t.Error("it was changed")
				}
				// The newer one put back, and all of it as it was.
				for _, files := range []map[string][]byte{newer, backup, newer} {
					putCopy(disk, files)
					if _, err := check(Config{Dir: keysFolder, Mark: markFile}, disk); err != nil {
						t.Error(err)
					}
					r, _ := openMarked(t, disk)
					opens(t, r, "a", "m", "f", one, "2")
					closeRing(t, r)
				}
				// To go on with the older one.
				putCopy(disk, older)
				disk.Drop(markFile)
				r, _ = openMarked(t, disk)
				opens(t, r, "a", "m", "f", one, "2")
				seal(t, r, "a", "more", "m", "f", "1")
				closeRing(t, r)
				r, told := openMarked(t, disk)
				closeRing(t, r)
				if len(*told) > 0 {
					t.Errorf("told %q", *told)
				}
			})
		}
	}
}

// TestAFolderOfBefore: one whose counts have no number is taken, and numbered by its first
// start, after which it is older itself.
func TestAFolderOfBefore(t *testing.T) {
	disk := newDisk(1)
	r, _ := openMarked(t, disk)
	one := seal(t, r, "a", "who", "m", "f", "1")
	closeRing(t, r)
	counts := filepath.Join(keysFolder, countsFile)
	_, of, err := parseCounts(disk.Data(counts))
	if err != nil || len(of) != 1 {
		t.Fatal(of, err)
	}
	b := append([]byte(countsFirst), disk.Data(counts)[len(countsMagic)+8:]...)
	b = b[:len(b)-4]
	disk.Put(counts, binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crcTable)))
	ids, _, _ := bytes.Cut(disk.Data(markFile), []byte(changesPrefix))
	disk.Put(markFile, ids)
	before := copied(disk, false)
	if found, err := check(Config{Dir: keysFolder, Mark: markFile}, disk); err != nil || !found.Counted || !found.Marked {
		t.Errorf("checked: %+v, %v", found, err)
	}
	r, told := openMarked(t, disk)
	opens(t, r, "a", "m", "f", one, "1")
	closeRing(t, r)
	if len(*told) > 0 || !bytes.Contains(disk.Data(markFile), []byte("\n"+changesPrefix+"1\n")) {
		t.Errorf("told %q, mark %q", *told, disk.Data(markFile))
	}
	putCopy(disk, before)
	if _, err := open(Config{Dir: keysFolder, KEK: kek(1), Mark: markFile}, disk); !errors.Is(err, errOlder) {
		t.Errorf("the one of before: %v", err)
	}
}

// TestTheMarkLags: it is at no time ahead of the folder, and where it could not be written
// the next start does.
func TestTheMarkLags(t *testing.T) {
	disk := newDisk(1)
	r, told := openMarked(t, disk)
	sealed := map[string]string{"s0": seal(t, r, "a", "s0", "m", "f", "s0")}
	disk.Fail = func(_, name string) error {
		if strings.Contains(name, "keys.id") {
			return syscall.ENOSPC
		}
		return nil
	}
	for i := range 5 {
		who := fmt.Sprint("new", i)
		sealed[who] = seal(t, r, "a", who, "m", "f", who)
		if err := r.raise(); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	closeRing(t, r)
	if !strings.Contains(strings.Join(*told, ";"), "no space left") {
		t.Errorf("told %q", *told)
	}
	disk.Fail = nil
	disk = disk.After(true)
	numbers := func() (inside, outside uint64) {
		m, err := readMark(disk, markFile)
		if err != nil {
			t.Fatal(err)
		}
		changes, _, err := readCounts(disk, keysFolder)
		if err != nil {
			t.Fatal(err)
		}
		return changes, m.changes
	}
	if inside, outside := numbers(); inside < outside+5 {
		t.Errorf("%d changes in the folder, %d in the mark", inside, outside)
	}
	r, _ = openMarked(t, disk)
	if inside, outside := numbers(); inside != outside {
		t.Errorf("%d changes in the folder, %d in the mark after a start", inside, outside)
	}
	for _, who := range slices.Sorted(maps.Keys(sealed)) {
		opens(t, r, "a", "m", "f", sealed[who], who)
	}
	closeRing(t, r)
	// A mark that says nonsense of the changes locks nobody out.
	for _, n := range []string{"", "-1", "99999999999999999999", "x"} {
		b, _, _ := bytes.Cut(disk.Data(markFile), []byte(changesPrefix))
		disk.Put(markFile, []byte(string(b)+changesPrefix+n+"\n"))
		r, _ = openMarked(t, disk)
		closeRing(t, r)
		if inside, outside := numbers(); inside != outside {
			t.Errorf("%q: %d changes in the folder, %d in the mark", n, inside, outside)
		}
	}
}
