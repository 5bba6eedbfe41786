package keys

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs/vfstest"
)

// sealedValue is what a client was given, and what it may expect of it.
type sealedValue struct {
	tenant, subject, text, value string
	// gone: its key was said to be forgotten. unsure: that failed, or was not answered.
	gone, unsure bool
}

// vault is a client of the keys, who remembers across crashes what was acknowledged.
type vault struct {
	t       *testing.T
	rng     *rand.Rand
	sealed  []*sealedValue
	secrets map[string][]byte
	keks    []byte // those that the folder may be wrapped by, the likeliest first
	what    string
	n       int
}

func newVault(t *testing.T, seed uint64) *vault {
	return &vault{t: t, rng: rand.New(rand.NewPCG(seed, 2)), secrets: map[string][]byte{}, keks: []byte{1}}
}

func (v *vault) fatalf(format string, args ...any) {
	v.t.Helper()
	v.t.Fatalf("%s: %s", v.what, fmt.Sprintf(format, args...))
}

// open opens the folder with the key that it may be wrapped by.
func (v *vault) open(disk *vfstest.FS) (r *Ring, err error) {
	for _, n := range v.keks {
		r, err = open(Config{Dir: keysFolder, KEK: kek(n), Mark: markFile}, disk)
		if err == nil {
			r.pause, r.look = 0, 0
			v.keks = []byte{n}
			return r, nil
		}
		if !errors.Is(err, ErrWrongKey) {
			return nil, err
		}
	}
	return nil, err
}

// names are subjects of a tenant that lie in the same two files.
func (v *vault) names(r *Ring, tenant string, n int) []string {
	t := r.known(tenant)
	if t == nil {
		return []string{"", "s"}
	}
	var out []string
	for len(out) < n {
		s := fmt.Sprint("s", v.rng.IntN(3000))
		if shardOf(t.pseudonym(s)) < 2 {
			out = append(out, s)
		}
	}
	return append(out, "")
}

func (v *vault) seal(r *Ring, tenant string, subjects []string) error {
	list, err := r.Sealers(tenant, subjects)
	if err != nil {
		return err
	}
	for i, s := range list {
		v.n++
		x := &sealedValue{tenant: tenant, subject: subjects[i], value: fmt.Sprint("value ", v.n)}
		if x.text, err = s.Seal("m", "f", []byte(x.value)); err != nil {
			v.fatalf("seal: %v", err)
		}
		v.sealed = append(v.sealed, x)
	}
	return nil
}

func (v *vault) forget(r *Ring, disk *vfstest.FS) {
	if len(v.sealed) == 0 {
		return
	}
	x := v.sealed[v.rng.IntN(len(v.sealed))]
	if x.subject == "" {
		return
	}
	_, err := r.Forget(context.Background(), x.tenant, x.subject)
	for _, y := range v.sealed {
		if y.tenant == x.tenant && y.subject == x.subject {
			y.gone, y.unsure = y.gone || err == nil, y.unsure || err != nil
		}
	}
	if err == nil {
		v.erased(disk)
	}
}

// erased fails where a file of the disk has a key that is forgotten.
func (v *vault) erased(disk *vfstest.FS) {
	v.t.Helper()
	for _, x := range v.sealed {
		if !x.gone {
			continue
		}
		b, err := parseBlob(x.text)
		if err != nil {
			v.fatalf("%v", err)
		}
		for _, name := range disk.Names() {
			if bytes.Contains(disk.Data(name), append(b.who[:], b.gen[:]...)) {
				v.fatalf("%s has a forgotten key", name)
			}
		}
	}
}

// work does what clients and operators do; what fails was told.
func (v *vault) work(r *Ring, disk *vfstest.FS, steps int) {
	for range steps {
		tenant := string(rune('a' + v.rng.IntN(3)))
		switch v.rng.IntN(10) {
		case 0:
			_ = r.Rotate(tenant) // the old key goes on
		case 1:
			next := 3 - v.keks[0]
			if err := r.Rewrap(kek(next)); err == nil {
				v.keks = []byte{next}
			} else {
				v.keks = []byte{v.keks[0], next}
			}
		case 2, 3:
			v.forget(r, disk)
		case 4:
			if b, err := r.Secret(tenant); err == nil {
				v.secret(tenant, b)
			}
		case 5:
			for _, x := range v.sealed {
				_, _ = r.Open(collector.Scope{Tenant: x.tenant, Model: "m"}, "f", x.text)
			}
		case 6:
			_ = r.raise() // what was counted before still is
		default:
			_ = v.seal(r, tenant, v.names(r, tenant, 1+v.rng.IntN(20)))
		}
	}
}

func (v *vault) secret(tenant string, b []byte) {
	v.t.Helper()
	if was := v.secrets[tenant]; was != nil && !bytes.Equal(was, b) {
		v.fatalf("tenant %s has another secret", tenant)
	}
	v.secrets[tenant] = b
}

// check holds what was acknowledged against what there is, on a disk that is well.
func (v *vault) check(r *Ring, disk *vfstest.FS) {
	v.t.Helper()
	for i, x := range v.sealed {
		got, err := r.Open(collector.Scope{Tenant: x.tenant, Model: "m"}, "f", x.text)
		forgotten := errors.Is(err, collector.ErrForgotten)
		switch {
		case x.gone && !forgotten:
			v.fatalf("a forgotten key opens %q: %v", got, err)
		case !x.gone && !(x.unsure && forgotten) && (err != nil || string(got) != x.value):
			v.fatalf("value %d of %d of tenant %s, subject %q (unsure %t) opens as %q: %v", i, len(v.sealed), x.tenant, x.subject, x.unsure, got, err)
		}
	}
	for tenant := range v.secrets {
		b, err := r.Secret(tenant)
		if err != nil {
			v.fatalf("the secret of %s: %v", tenant, err)
		}
		v.secret(tenant, b)
	}
	if _, err := r.List(); err != nil {
		v.fatalf("list: %v", err)
	}
	v.erased(disk)
}

// mended fails unless a ring goes on by itself when its disk is well again. Each file that
// was given up may refuse once.
func (v *vault) mended(r *Ring, disk *vfstest.FS) {
	v.t.Helper()
	for _, do := range []func() error{
		func() error { return r.Rotate("a") },
		func() error { return v.seal(r, "a", v.names(r, "a", 20)) },
	} {
		var err error
		for range 4 {
			if err = do(); err == nil {
				break
			}
		}
		if err != nil {
			v.fatalf("does not go on: %v", err)
		}
	}
	v.check(r, disk)
}

// newDisk is one of which reading fails, too.
func newDisk(seed uint64) *vfstest.FS {
	disk := vfstest.New(seed, "/data")
	disk.CountReads = true
	return disk
}

type fault struct {
	crash, power, forGood bool
}

// run has the k-th operation fail, or the machine go down in it, and looks at what later
// starts make of it. It reports whether there were that many.
func (f fault) run(t *testing.T, k int, seed uint64) (came bool, sealed int) {
	t.Helper()
	v, disk := newVault(t, seed), newDisk(seed)
	v.what = fmt.Sprintf("seed %d, %+v, operation %d", seed, f, k)
	if k%4 != 0 { // else the folder is made under way
		r, err := v.open(disk)
		if err != nil {
			t.Fatal(err)
		}
		v.work(r, disk, 6)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		disk = disk.After(false)
	}
	var fails error
	if !f.crash {
		fails = []error{syscall.EIO, syscall.ENOSPC}[k%2]
	}
	failure := disk.FailAt(k, f.forGood, fails)
	if f.crash {
		disk.CrashAt = k
	}
	r, err := v.open(disk)
	if err == nil {
		v.work(r, disk, 10)
	} else if !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, vfstest.ErrCrashed) {
		v.fatalf("the start is refused without the reason: %v", err)
	}
	what, failed := failure.Came()
	v.what += " (" + what + ")"
	came = failed || disk.Down()
	disk.Fail, disk.CrashAt = nil, 0
	if err == nil && !disk.Down() {
		v.mended(r, disk)
	}
	if r != nil {
		_ = r.Close()
	}
	if !disk.Down() && disk.Locked() {
		v.fatalf("the folder stays locked after %v", err)
	}
	for _, power := range []bool{f.power, true} {
		disk = disk.After(power)
		if r, err = v.open(disk); err != nil {
			v.fatalf("open once the disk is well: %v", err)
		}
		v.check(r, disk)
		v.work(r, disk, 3)
		v.check(r, disk)
		if err := r.Close(); err != nil {
			v.fatalf("close: %v", err)
		}
	}
	return came, len(v.sealed)
}

// TestFaultAtEveryOperation has every operation on the keys' files fail, once and from
// then on, and the process or the machine end in it. What was sealed opens, after power
// cuts that follow too, what was forgotten stays so, and a disk that is well again needs
// no restart. Nothing is missed that a crash took: the mark and the counts hold.
func TestFaultAtEveryOperation(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, f := range []fault{{crash: true}, {crash: true, power: true}, {}, {power: true}, {forGood: true}, {forGood: true, power: true}} {
		t.Run(fmt.Sprintf("%+v", f), func(t *testing.T) {
			runs, values := 0, 0
			for round := range uint64(5) {
				for k, missed := 1, 0; missed < 4; k++ {
					came, sealed := f.run(t, k, seed+round)
					if !came {
						missed++ // a folder that is made under way has more operations
						continue
					}
					runs++
					values += sealed
				}
			}
			if runs < 200 {
				t.Errorf("%d runs: the workload does next to nothing", runs)
			}
			t.Logf("%d faults, %d values sealed, 0 lost, 0 forgotten ones back", runs, values)
		})
	}
}

// TestSecretAtEveryOperation: a key that was returned once is the key of all who ask later.
func TestSecretAtEveryOperation(t *testing.T) {
	const path = "/data/private.key"
	seed := uint64(time.Now().UnixNano())
	for _, f := range []fault{{crash: true}, {crash: true, power: true}, {}, {power: true}, {forGood: true, power: true}} {
		for round := range uint64(20) {
			for k := 1; k < 25; k++ {
				disk := newDisk(seed + round)
				var fails error
				if !f.crash {
					fails = syscall.EIO
				}
				failure := disk.FailAt(k, f.forGood, fails)
				if f.crash {
					disk.CrashAt = k
				}
				var known []byte
				for range 3 {
					key, err := makeSecret(disk, path)
					op, _ := failure.Came()
					if err == nil && len(key) != keySize || err == nil && known != nil && !bytes.Equal(key, known) {
						t.Fatalf("seed %d, %+v, operation %d (%s): %x after %x", seed+round, f, k, op, key, known)
					}
					if err == nil {
						known = key
					}
				}
				op, _ := failure.Came()
				if known == nil && !f.crash && !f.forGood {
					t.Fatalf("%+v, operation %d (%s): never made", f, k, op)
				}
				for _, power := range []bool{f.power, true} {
					disk = disk.After(power)
					key, err := makeSecret(disk, path)
					if err != nil || len(key) != keySize || known != nil && !bytes.Equal(key, known) {
						t.Fatalf("seed %d, %+v, operation %d (%s), power %t: %x after %x: %v", seed+round, f, k, op, power, key, known, err)
					}
					known = key
				}
			}
		}
	}
}

// TestFlippedBits: no single bit of the file of tenants that is wrong costs a root, and
// none but the last frame's a data key.
func TestFlippedBits(t *testing.T) {
	disk := newDisk(1)
	v := newVault(t, 1)
	r, err := v.open(disk)
	if err != nil {
		t.Fatal(err)
	}
	for _, tenant := range []string{"a", "b" + strings.Repeat("x", 120)} {
		if err := v.seal(r, tenant, []string{""}); err != nil {
			t.Fatal(err)
		}
	}
	whole := bytes.Clone(r.content)
	list, _, err := parseTenants(whole)
	if err != nil || len(list) != 4 {
		t.Fatalf("%d frames, %v", len(list), err)
	}
	for bit := range len(whole) * 8 {
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		if list, good, err := parseTenants(b); err == nil {
			t.Fatalf("bit %d of byte %d: %d frames, %d of %d bytes", bit%8, bit/8, len(list), good, len(b))
		}
	}
	// Nor does a block that never reached the disk, while what is behind it did.
	for _, lost := range [][2]int{{196, 512}, {512, len(whole)}} {
		b := bytes.Clone(whole)
		clear(b[lost[0]:lost[1]])
		if list, good, err := parseTenants(b); err != nil || len(list) != 2 || good != 196 {
			t.Errorf("without the bytes %v: %d frames, %d bytes, %v", lost, len(list), good, err)
		}
	}
	// A tenant's first two frames come or go together.
	at := len(whole) - len(list[3].append(nil))
	for cut := at; cut < len(whole); cut++ {
		if list, _, err := parseTenants(whole[:cut]); err != nil || len(list) != 2 {
			t.Fatalf("cut at %d (the second begins at %d): %d frames, %v, root %s", cut, at, len(list), err, hex.EncodeToString(list[0].id[:]))
		}
	}
}
