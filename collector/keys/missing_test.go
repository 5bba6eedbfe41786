package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs/vfstest"
)

const (
	keysFolder = "/data/keys"
	markFile   = "/data/keys.id"
)

// openMarked opens the folder of keys of a disk, and gives what the ring tells.
func openMarked(t *testing.T, disk *vfstest.FS) (*Ring, *[]string) {
	t.Helper()
	var told []string
	r, err := open(Config{Dir: keysFolder, KEK: kek(1), Mark: markFile, Told: func(err error) { told = append(told, err.Error()) }}, disk)
	if err != nil {
		t.Fatal(err)
	}
	r.pause, r.look = 0, 0
	return r, &told
}

func closeRing(t *testing.T, r *Ring) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// subjectFiles names the files of subjects on a disk.
func subjectFiles(disk *vfstest.FS) (list []string) {
	for _, name := range disk.Names() {
		if isSubjects(filepath.Base(name)) {
			list = append(list, name)
		}
	}
	return list
}

// TestAFolderThatIsGone: what was in the folder of keys is missed by the next start, and
// nothing is made in its place until somebody says so.
func TestAFolderThatIsGone(t *testing.T) {
	disk := newDisk(1)
	r, _ := openMarked(t, disk)
	if disk.Has(markFile) {
		t.Error("a mark of no keys")
	}
	one := seal(t, r, "a", "", "m", "f", "1")
	closeRing(t, r)
	older := disk.Data(filepath.Join(keysFolder, tenantsFile))
	r, told := openMarked(t, disk)
	seal(t, r, "b", "", "m", "f", "2")
	closeRing(t, r)
	whole, mark := disk.Data(filepath.Join(keysFolder, tenantsFile)), disk.Data(markFile)
	if len(*told) > 0 || bytes.Count(mark, []byte("\n")) != 3 {
		t.Errorf("told %q, mark %q", *told, mark)
	}
	for what, change := range map[string]func(){
		"folder":  func() { disk.Drop(keysFolder) },
		"file":    func() { disk.Drop(filepath.Join(keysFolder, tenantsFile)) },
		"emptied": func() { disk.Put(filepath.Join(keysFolder, tenantsFile), []byte(tenantsMagic)) },
		"older":   func() { disk.Put(filepath.Join(keysFolder, tenantsFile), older) },
		"folder, and a mark that cannot be read": func() {
			disk.Drop(keysFolder)
			disk.Put(markFile, []byte("xyz\n"))
		},
	} {
		change()
		before := len(disk.Names())
		_, err := open(Config{Dir: keysFolder, KEK: kek(1), Mark: markFile}, disk)
		if !errors.Is(err, errLost) || !strings.Contains(err.Error(), "remove "+markFile) {
			t.Errorf("%s: %v", what, err)
		}
		if len(disk.Names()) != before || disk.Locked() {
			t.Errorf("%s: left %q", what, disk.Names())
		}
		if _, err := check(Config{Dir: keysFolder, Mark: markFile}, disk); !errors.Is(err, errLost) {
			t.Errorf("%s: checked: %v", what, err)
		}
		disk.Put(filepath.Join(keysFolder, tenantsFile), whole)
		disk.Put(markFile, mark)
		r, _ := openMarked(t, disk)
		opens(t, r, "a", "m", "f", one, "1")
		closeRing(t, r)
	}
	mark = disk.Data(markFile)
	// A mark that is gone, empty or cannot be read locks nobody out, and is made anew.
	for what, change := range map[string]func(){
		"gone": func() { disk.Drop(markFile) }, "empty": func() { disk.Put(markFile, nil) },
		"zeros": func() { disk.Put(markFile, make([]byte, 20)) }, "cut": func() { disk.Put(markFile, mark[:9]) },
	} {
		change()
		r, _ := openMarked(t, disk)
		closeRing(t, r)
		if !bytes.Equal(disk.Data(markFile), mark) {
			t.Errorf("%s: the mark is %q", what, disk.Data(markFile))
		}
	}
	// To begin anew.
	disk.Drop(markFile)
	disk.Drop(keysFolder)
	r, _ = openMarked(t, disk)
	defer r.Close()
	seal(t, r, "a", "", "m", "f", "1")
}

// TestCloseOnAFullDisk: keys that are on the disk are kept, whether there is room to write how
// many they are or not; another failure is one of Close.
func TestCloseOnAFullDisk(t *testing.T) {
	for _, fault := range []error{syscall.ENOSPC, syscall.EIO} {
		disk := newDisk(1)
		r, told := openMarked(t, disk)
		one := seal(t, r, "a", "who", "m", "f", "1")
		disk.Fail = func(op, name string) error {
			if op == "write" && strings.Contains(name, countsFile) {
				return fault
			}
			return nil
		}
		err := r.Close()
		if full := errors.Is(fault, syscall.ENOSPC); (err == nil) != full || err != nil && !errors.Is(err, fault) || full && !strings.Contains(strings.Join(*told, ";"), "no space left") {
			t.Errorf("%v: closes with %v and tells %q", fault, err, *told)
		}
		disk.Fail = nil
		r, _ = openMarked(t, disk)
		opens(t, r, "a", "m", "f", one, "1")
		closeRing(t, r)
		if _, of, err := parseCounts(disk.Data(filepath.Join(keysFolder, countsFile))); err != nil || len(of) != 1 {
			t.Errorf("%v: counted %v %v", fault, of, err)
		}
	}
}

// TestAMarkThatCannotBeWritten: nothing is sealed by keys that would not be missed, and when
// it can be written they are the same.
func TestAMarkThatCannotBeWritten(t *testing.T) {
	disk := newDisk(1)
	r, _ := openMarked(t, disk)
	disk.Fail = func(_, name string) error {
		if strings.Contains(name, "keys.id") {
			return syscall.ENOSPC
		}
		return nil
	}
	for range 3 {
		if _, err := r.Sealers("a", []string{""}); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if _, err := r.Secret("a"); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	disk.Fail = nil
	one := seal(t, r, "a", "", "m", "f", "1")
	closeRing(t, r)
	if list, _, err := parseTenants(disk.Data(filepath.Join(keysFolder, tenantsFile))); err != nil || len(list) != 2 {
		t.Errorf("%d records, %v", len(list), err)
	}
	r, _ = openMarked(t, disk)
	defer r.Close()
	opens(t, r, "a", "m", "f", one, "1")
}

// TestTakenAway: what somebody takes out of the folder while the keys are in use is there
// again before anything more is sealed, and at the end.
func TestTakenAway(t *testing.T) {
	for what, take := range map[string]func(disk *vfstest.FS){
		"folder":  func(disk *vfstest.FS) { disk.Drop(keysFolder) },
		"all":     func(disk *vfstest.FS) { disk.Drop("/data") },
		"tenants": func(disk *vfstest.FS) { disk.Drop(filepath.Join(keysFolder, tenantsFile)) },
		"lock":    func(disk *vfstest.FS) { disk.Drop(filepath.Join(keysFolder, lockFile)) },
		"counts":  func(disk *vfstest.FS) { disk.Drop(filepath.Join(keysFolder, countsFile)) },
		"subjects": func(disk *vfstest.FS) {
			for _, name := range subjectFiles(disk) {
				disk.Drop(name)
			}
		},
		"emptied": func(disk *vfstest.FS) {
			for _, name := range disk.Names() {
				disk.Put(name, nil)
			}
		},
	} {
		for _, use := range []string{"known", "new", "tenant", "rotate", "secret", "forget", "rewrap", "close", "watch"} {
			t.Run(what+" "+use, func(t *testing.T) {
				disk := newDisk(1)
				r, told := openMarked(t, disk)
				sealed := map[string]string{}
				for i := range 20 {
					who := fmt.Sprint("s", i)
					sealed[who] = seal(t, r, "a", who, "m", "f", who)
				}
				take(disk)
				key := kek(1)
				switch use {
				case "known":
					sealed["s1"] = seal(t, r, "a", "s1", "m", "f", "s1")
				case "new":
					sealed["n"] = seal(t, r, "a", "n", "m", "f", "n")
				case "tenant":
					seal(t, r, "b", "n", "m", "f", "n")
				case "rotate":
					if err := r.Rotate("a"); err != nil {
						t.Fatal(err)
					}
				case "secret":
					if _, err := r.Secret("a"); err != nil {
						t.Fatal(err)
					}
				case "forget":
					if n, err := r.Forget(context.Background(), "a", "s0"); n != 1 || err != nil {
						t.Fatal(n, err)
					}
					delete(sealed, "s0")
				case "rewrap":
					key = kek(2)
					if err := r.Rewrap(key); err != nil {
						t.Fatal(err)
					}
				case "watch":
					r.watch()
				}
				if use == "watch" && (what == "folder" || what == "all") && len(*told) != 1 {
					t.Errorf("told %q", *told)
				}
				if use == "close" || use == "watch" || what == "folder" || what == "all" || what == "tenants" {
					if use == "close" {
						closeRing(t, r)
					}
					disk = disk.After(true) // the power is cut
				} else {
					closeRing(t, r)
				}
				r, err := open(Config{Dir: keysFolder, KEK: key, Mark: markFile}, disk)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				for who, s := range sealed {
					opens(t, r, "a", "m", "f", s, who)
				}
			})
		}
	}
}

// TestTakenAwayForGood: where the files cannot be put back nothing is sealed, and what was
// can be read; when they can, all goes on.
func TestTakenAwayForGood(t *testing.T) {
	for k := 1; k < 40; k++ {
		disk := newDisk(uint64(k))
		r, _ := openMarked(t, disk)
		sealed := map[string]string{}
		for i := range 10 {
			who := fmt.Sprint("s", i)
			sealed[who] = seal(t, r, "a", who, "m", "f", who)
		}
		disk.Drop(keysFolder)
		disk.FailAt(k, true, syscall.EIO)
		list, err := r.Sealers("a", []string{"s1", "new"})
		disk.Fail = nil
		if err == nil {
			s, _ := list[1].Seal("m", "f", []byte("new"))
			sealed["new"] = s
			disk.After(true)
		}
		for who, s := range sealed {
			opens(t, r, "a", "m", "f", s, who)
		}
		for range 4 {
			if list, err = r.Sealers("a", []string{"s1", "later"}); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatalf("operation %d: does not go on: %v", k, err)
		}
		sealed["later"], _ = list[1].Seal("m", "f", []byte("later"))
		disk = disk.After(k%2 == 0)
		r, _ = openMarked(t, disk)
		for who, s := range sealed {
			opens(t, r, "a", "m", "f", s, who)
		}
		closeRing(t, r)
	}
}

// TestAnothersKeysInTheFolder are not overwritten.
func TestAnothersKeysInTheFolder(t *testing.T) {
	disk := newDisk(1)
	other, err := open(Config{Dir: "/data/other", KEK: kek(1)}, disk)
	if err != nil {
		t.Fatal(err)
	}
	seal(t, other, "z", "", "m", "f", "1")
	strange := disk.Data(filepath.Join("/data/other", tenantsFile))
	r, _ := openMarked(t, disk)
	seal(t, r, "a", "", "m", "f", "1")
	path := filepath.Join(keysFolder, tenantsFile)
	disk.Put(path, strange)
	if _, err := r.Sealers("a", []string{""}); err == nil || !strings.Contains(err.Error(), "other keys") || !bytes.Equal(disk.Data(path), strange) {
		t.Errorf("%v", err)
	}
	disk.Drop(path)
	seal(t, r, "a", "", "m", "f", "1")
	// Another process has taken the folder.
	disk.Drop(keysFolder)
	held, err := disk.Lock(filepath.Join(keysFolder, lockFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Sealers("a", []string{""}); !errors.Is(err, ErrInUse) {
		t.Errorf("beside another: %v", err)
	}
	if err := errors.Join(held.Close(), r.Close()); err != nil {
		t.Error(err)
	}
}

// TestSubjectsThatAreGone: files of subjects that were cut at a record, emptied or removed
// are refused by the next start and by whoever has them not open.
func TestSubjectsThatAreGone(t *testing.T) {
	disk := newDisk(1)
	r, _ := openMarked(t, disk)
	sealed := map[string]string{}
	for i := range 300 {
		who := fmt.Sprint("s", i)
		sealed[who] = seal(t, r, "a", who, "m", "f", who)
	}
	if n, err := r.Forget(t.Context(), "a", "s0"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	delete(sealed, "s0")
	closeRing(t, r)
	names := subjectFiles(disk)
	cuts := map[string]func(b []byte) []byte{
		"a record less": func(b []byte) []byte { return b[:len(b)-recordSize] },
		"a bit less":    func(b []byte) []byte { return b[:len(b)-1] },
		"the head":      func(b []byte) []byte { return b[:headerSize] },
		"emptied":       func([]byte) []byte { return nil },
	}
	put := func(name string, b []byte, cut func([]byte) []byte) {
		if disk.Drop(name); cut != nil {
			disk.Put(name, cut(bytes.Clone(b)))
		}
	}
	for i, name := range names[:8] {
		b := disk.Data(name)
		if len(b) <= headerSize {
			continue
		}
		cuts["removed"] = nil
		for what, cut := range cuts {
			put(name, b, cut)
			_, err := open(Config{Dir: keysFolder, KEK: kek(1), Mark: markFile}, disk)
			if !errors.Is(err, errFewer) || !strings.Contains(err.Error(), filepath.Base(name)) {
				t.Errorf("%s of file %d: %v", what, i, err)
			}
			if _, err := check(Config{Dir: keysFolder, Mark: markFile}, disk); !errors.Is(err, errFewer) {
				t.Errorf("%s of file %d, checked: %v", what, i, err)
			}
			disk.Put(name, b)
			r, _ := openMarked(t, disk)
			put(name, b, cut)
			failed := 0
			for who, s := range sealed {
				at, _ := parseBlob(s)
				mine := shardOf(at.who) == r.known("a").shardAt(name)
				got, err := r.Open(collector.Scope{Tenant: "a", Model: "m"}, "f", s)
				if mine && errors.Is(err, errFewer) {
					failed++
				} else if mine || err != nil || string(got) != who {
					t.Fatalf("%s of file %d, while in use: %q, %v", what, i, got, err)
				}
				if _, err := r.Sealers("a", []string{who}); mine != errors.Is(err, errFewer) {
					t.Fatalf("%s of file %d, while in use: %v", what, i, err)
				}
			}
			if _, err := r.List(); failed == 0 || !errors.Is(err, errFewer) {
				t.Errorf("%d failed, listed: %v", failed, err)
			}
			disk.Put(name, b)
			closeRing(t, r)
		}
	}
	found, err := check(Config{Dir: keysFolder, Mark: markFile}, disk)
	if want := (Found{Tenants: 1, Subjects: 299, Marked: true, Counted: true}); err != nil || found != want {
		t.Errorf("%+v, %v", found, err)
	}
	// To go on without: what is there is counted anew.
	lost := names[0]
	disk.Drop(lost)
	disk.Drop(filepath.Join(keysFolder, countsFile))
	r, told := openMarked(t, disk)
	if len(*told) != 1 || !strings.Contains((*told)[0], "counted anew") {
		t.Errorf("told %q", *told)
	}
	for who, s := range sealed {
		at, _ := parseBlob(s)
		if shardOf(at.who) == r.known("a").shardAt(lost) {
			if _, err := r.Open(collector.Scope{Tenant: "a", Model: "m"}, "f", s); !errors.Is(err, collector.ErrForgotten) {
				t.Error(err)
			}
			continue
		}
		opens(t, r, "a", "m", "f", s, who)
	}
	closeRing(t, r)
	for _, b := range [][]byte{nil, []byte("PLDKCNT"), bytes.Repeat([]byte{7}, 300)} { // damaged
		disk.Put(filepath.Join(keysFolder, countsFile), b)
		if _, err := check(Config{Dir: keysFolder, Mark: markFile}, disk); !errors.Is(err, errDamaged) {
			t.Errorf("checked: %v", err)
		}
		r, _ := openMarked(t, disk)
		closeRing(t, r)
		disk.Put(names[1], disk.Data(names[1])[:headerSize])
		if _, err := open(Config{Dir: keysFolder, KEK: kek(1)}, disk); !errors.Is(err, errFewer) {
			t.Errorf("cut after the counts were made anew: %v", err)
		}
		names = names[1:]
		disk.Drop(filepath.Join(keysFolder, countsFile))
		r, _ = openMarked(t, disk)
		closeRing(t, r)
	}
}

// shardAt is the number of a file of subjects.
func (t *tenant) shardAt(path string) int {
	for i := range t.shards {
		if t.shards[i].path == path {
			return i
		}
	}
	return -1
}

// TestKeysThatWereNeverFinished are removed by who makes one next, unless they are young
// or of another form.
func TestKeysThatWereNeverFinished(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	stays := map[string]bool{}
	for name, keep := range map[string]bool{
		".new-key-0123456789abcdef": false, ".new-key-0123456789abcdee": true, ".new-key-0123456789ABCDEF": true,
		".new-key-0123": true, ".new-key-": true, "new-key-0123456789abcdef": true, ".new-key-0123456789abcdef0": true,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if name != ".new-key-0123456789abcdee" { // that one is young
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
		stays[name] = keep
	}
	if err := os.Mkdir(filepath.Join(dir, ".new-key-0123456789abcded"), 0o700); err != nil {
		t.Fatal(err)
	}
	stays[".new-key-0123456789abcded"] = true
	path := filepath.Join(dir, "key")
	key, err := MakeSecret(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, keep := range stays {
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != keep || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The second name of the key itself.
	second := filepath.Join(dir, ".new-key-0123456789abcdef")
	if err := errors.Join(os.Link(path, second), os.Chtimes(path, old, old)); err != nil {
		t.Fatal(err)
	}
	again, err := MakeSecret(path)
	if _, gone := os.Lstat(second); err != nil || !bytes.Equal(again, key) || !errors.Is(gone, fs.ErrNotExist) {
		t.Errorf("%x after %x, %v, %v", again, key, err, gone)
	}
	for _, c := range []struct {
		change func() error
		there  bool
		said   string
	}{
		{func() error { return nil }, true, ""},
		{func() error { _, err := KeepSecret(path); return err }, true, ""},
		{func() error { return os.WriteFile(path, []byte(strings.Repeat("ab", 32)), 0o600) }, true, "another key"},
		{func() error { return os.Remove(path) }, true, "put that back"},
		{func() error { return os.Remove(path + ".id") }, false, ""},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		there, err := CheckSecret(path)
		if there != c.there || (err == nil) != (c.said == "") || err != nil && !strings.Contains(err.Error(), c.said) {
			t.Errorf("%+v: %t, %v", c, there, err)
		}
	}
}
