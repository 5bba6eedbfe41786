package keys

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/pellucid/pellucid/collector"
)

func kek(n byte) []byte { return bytes.Repeat([]byte{n}, keySize) }

func openRing(t testing.TB, dir string, key []byte) *Ring {
	t.Helper()
	r, err := Open(Config{Dir: dir, KEK: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func reopen(t *testing.T, r *Ring, key []byte) *Ring {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return openRing(t, r.dir, key)
}

func seal(t testing.TB, r *Ring, tenant, subject, model, field, value string) string {
	t.Helper()
	list, err := r.Sealers(tenant, []string{subject})
	if err != nil {
		t.Fatal(err)
	}
	s, err := list[0].Seal(model, field, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func opens(t testing.TB, r *Ring, tenant, model, field, sealed, want string) {
	t.Helper()
	got, err := r.Open(collector.Scope{Tenant: tenant, Model: model}, field, sealed)
	if err != nil || string(got) != want {
		t.Errorf("opened %q, %v; want %q", got, err, want)
	}
}

// TestSealOpen: what was sealed opens in its place, for the same key, and nowhere else.
func TestSealOpen(t *testing.T) {
	r := openRing(t, t.TempDir(), kek(1))
	rnd := rand.New(rand.NewPCG(1, 2))
	text := func(n int) string {
		b := make([]byte, rnd.IntN(n))
		for i := range b {
			b[i] = byte(rnd.IntN(256))
		}
		return string(b)
	}
	for range 500 {
		tenant, model, field, subject, value := fmt.Sprint("t", rnd.IntN(3)), "m"+text(9), "f"+text(9), text(4), text(300)
		s := seal(t, r, tenant, subject, model, field, value)
		if strings.Contains(s, value) && len(value) > 4 {
			t.Fatalf("%q is in %q", value, s)
		}
		opens(t, r, tenant, model, field, s, value)
		if again := seal(t, r, tenant, subject, model, field, value); again == s {
			t.Fatal("the same value is sealed as the same text")
		}
		b, _ := base64.RawURLEncoding.DecodeString(s[len(sealedPrefix):])
		b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		for _, other := range []struct{ tenant, model, field, sealed string }{
			{tenant + "x", model, field, s},
			{tenant, model + "x", field, s},
			{tenant, model, field + "x", s},
			{tenant, model + field[:1], field[1:], s},
			{tenant, model, field, s[:len(s)-2]},
			{tenant, model, field, sealedPrefix + base64.RawURLEncoding.EncodeToString(b)},
			{tenant, model, field, ""},
			{tenant, model, field, value},
		} {
			if got, err := r.Open(collector.Scope{Tenant: other.tenant, Model: other.model}, other.field, other.sealed); err == nil {
				t.Fatalf("%q opens as %q", other, got)
			}
		}
	}
}

func TestKeysSurviveAndRotate(t *testing.T) {
	dir := t.TempDir()
	r := openRing(t, dir, kek(1))
	old, mine := seal(t, r, "a", "", "m", "f", "old"), seal(t, r, "a", "ann", "m", "f", "mine")
	if err := r.Rotate("a"); err != nil {
		t.Fatal(err)
	}
	recent := seal(t, r, "a", "", "m", "f", "recent")
	if a, _ := parseBlob(old); func() keyID { b, _ := parseBlob(recent); return b.data }() == a.data {
		t.Error("the data key is the old one")
	}
	secret, err := r.Secret("a")
	if err != nil {
		t.Fatal(err)
	}
	r = reopen(t, r, kek(1))
	opens(t, r, "a", "m", "f", old, "old")
	opens(t, r, "a", "m", "f", recent, "recent")
	opens(t, r, "a", "m", "f", mine, "mine")
	if again, err := r.Secret("a"); err != nil || !bytes.Equal(again, secret) {
		t.Errorf("another secret: %v", err)
	}
	a, _ := parseBlob(seal(t, r, "a", "", "m", "f", "x"))
	if b, _ := parseBlob(recent); a.data != b.data {
		t.Error("a start makes another data key")
	}
	if a, _ = parseBlob(seal(t, r, "a", "ann", "m", "f", "x")); a.who == (pseudonym{}) {
		t.Error("no pseudonym")
	}
	if b, _ := parseBlob(mine); a.who != b.who || a.gen != b.gen {
		t.Error("a start makes another key of a subject")
	}
	list, err := r.List()
	if err != nil || len(list) != 1 || len(list[0].Data) != 2 || list[0].Subjects != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	// A worn key is replaced.
	r.known("a").current.Load().sealed.Store(maxSealed)
	if b, _ := parseBlob(seal(t, r, "a", "", "m", "f", "x")); b.data == a.data {
		t.Error("a worn data key goes on")
	}
	if list, _ = r.List(); len(list[0].Data) != 3 {
		t.Errorf("%+v", list)
	}
}

func TestRewrap(t *testing.T) {
	dir := t.TempDir()
	r := openRing(t, dir, kek(1))
	one, mine := seal(t, r, "a", "", "m", "f", "1"), seal(t, r, "a", "ann", "m", "f", "mine")
	if err := r.Rewrap(kek(2)); err != nil {
		t.Fatal(err)
	}
	two := seal(t, r, "b", "", "m", "f", "2") // goes on with the new one
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir, KEK: kek(1)}); !errors.Is(err, ErrWrongKey) || !strings.Contains(err.Error(), hex.EncodeToString(derive(kek(2), "kek id")[:8])) {
		t.Fatalf("the old key-encryption key: %v", err)
	}
	r = openRing(t, dir, kek(2))
	opens(t, r, "a", "m", "f", one, "1")
	opens(t, r, "b", "m", "f", two, "2")
	opens(t, r, "a", "m", "f", mine, "mine")
	if err := r.Rewrap([]byte("short")); err == nil {
		t.Error("a short key is taken")
	}
}

func folder(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		out[d.Name()], err = os.ReadFile(path)
		if info, _ := d.Info(); runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestForget(t *testing.T) {
	dir := t.TempDir()
	r := openRing(t, dir, kek(1))
	sealed := map[string]string{}
	for i := range 300 {
		who := fmt.Sprint("subject-", i)
		sealed[who] = seal(t, r, "a", who, "m", "f", who+"'s")
	}
	gone, _ := parseBlob(sealed["subject-17"])
	if !bytes.Contains(folder(t, dir)[filepath.Base(r.known("a").shards[shardOf(gone.who)].path)], append(gone.who[:], gone.gen[:]...)) {
		t.Fatal("the key would not be found")
	}
	for i, want := range []int{1, 0} {
		if n, err := r.Forget(t.Context(), "a", "subject-17"); n != want || err != nil {
			t.Fatalf("time %d: %d, %v", i, n, err)
		}
	}
	for name, b := range folder(t, dir) {
		if bytes.Contains(b, gone.who[:]) {
			t.Errorf("%s still has it", name)
		}
	}
	check := func(r *Ring) {
		t.Helper()
		for who, s := range sealed {
			if who == "subject-17" {
				if _, err := r.Open(collector.Scope{Tenant: "a", Model: "m"}, "f", s); !errors.Is(err, collector.ErrForgotten) {
					t.Errorf("forgotten: %v", err)
				}
				continue
			}
			opens(t, r, "a", "m", "f", s, who+"'s")
		}
	}
	check(r)
	again := seal(t, r, "a", "subject-17", "m", "f", "new")
	check(r)
	opens(t, r, "a", "m", "f", again, "new")
	r = reopen(t, r, kek(1))
	check(r)
	opens(t, r, "a", "m", "f", again, "new")
	for _, none := range [][2]string{{"a", "nobody"}, {"nobody", "subject-1"}, {"a", ""}} {
		if n, err := r.Forget(t.Context(), none[0], none[1]); n != 0 || err != nil {
			t.Errorf("%v: %d, %v", none, n, err)
		}
	}
	if r.known("nobody") != nil {
		t.Error("forgetting makes a tenant")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Forget(ended, "a", "subject-1"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestManyAtOnce: rows of the same and of other subjects, forgetting in between, and
// everything that was not forgotten after its sealing opens after a restart.
func TestManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	r := openRing(t, dir, kek(1))
	var mu sync.Mutex
	sealed := map[string][]string{}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 40 {
				who := fmt.Sprint("s", (g*7+i)%30)
				list, err := r.Sealers("a", []string{who, "", who + "-b"})
				if err != nil {
					t.Error(err)
					return
				}
				a, _ := list[0].Seal("m", "f", []byte(who))
				b, _ := list[2].Seal("m", "f", []byte(who+"-b"))
				mu.Lock()
				sealed[who], sealed[who+"-b"] = append(sealed[who], a), append(sealed[who+"-b"], b)
				mu.Unlock()
				if i%10 == 9 {
					if _, err := r.Forget(context.Background(), "a", who); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	r = reopen(t, r, kek(1))
	for who, list := range sealed {
		for _, s := range list {
			got, err := r.Open(collector.Scope{Tenant: "a", Model: "m"}, "f", s)
			forgotten := errors.Is(err, collector.ErrForgotten) && !strings.HasSuffix(who, "-b")
			if !forgotten && (err != nil || string(got) != who) {
				t.Fatalf("%s: %q, %v", who, got, err)
			}
		}
	}
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	r := openRing(t, dir, kek(1))
	if _, err := Open(Config{Dir: dir, KEK: kek(1)}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second one: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Sealers("a", []string{""}); err == nil {
		t.Error("a closed ring seals")
	}
	openRing(t, dir, kek(1))
}

// TestDamage: a file cut anywhere loses the record at its end and no other; any other
// damage is refused, and nothing is made anew.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	r := openRing(t, dir, kek(1))
	one := seal(t, r, "a", "", "m", "f", "1")
	if err := r.Rotate("a"); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		seal(t, r, "a", fmt.Sprint(i), "m", "f", "x")
	}
	var shardName string
	for name, b := range folder(t, dir) {
		if strings.HasPrefix(name, "subjects-") && len(b) > headerSize+3*recordSize {
			shardName = name
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	files := folder(t, dir)
	put := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole := files[tenantsFile]
	list, _, err := parseTenants(whole)
	if err != nil || len(list) != 3 {
		t.Fatalf("%d records, %v", len(list), err)
	}
	last := len(whole) - len(list[2].append(nil))
	for cut := last; cut < len(whole); cut++ {
		for _, tail := range [][]byte{nil, make([]byte, len(whole)-cut)} {
			put(tenantsFile, append(bytes.Clone(whole[:cut]), tail...))
			r, err := Open(Config{Dir: dir, KEK: kek(1)})
			if err != nil {
				t.Fatalf("cut at %d of %d: %v", cut, len(whole), err)
			}
			opens(t, r, "a", "m", "f", one, "1")
			if cut < len(whole)-4 { // the last bytes of a checksum may be zeros
				if list, _ := r.List(); len(list[0].Data) != 1 {
					t.Fatalf("cut at %d: %+v", cut, list)
				}
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for at := range last {
		b := bytes.Clone(whole)
		b[at] ^= 0x10
		put(tenantsFile, b)
		if _, err := Open(Config{Dir: dir, KEK: kek(1)}); err == nil {
			t.Fatalf("a bit turned at %d is taken", at)
		}
	}
	put(tenantsFile, whole)
	shard := files[shardName]
	for _, at := range []int{0, 9, headerSize + 3, headerSize + 40, headerSize + recordSize + 80} {
		b := bytes.Clone(shard)
		b[at] ^= 1
		put(shardName, b)
		r := openRing(t, dir, kek(1))
		if _, err := r.List(); err == nil {
			t.Errorf("a bit turned at %d of the subjects is taken", at)
		}
		if _, err := Check(Config{Dir: dir}); !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), shardName) {
			t.Errorf("a bit turned at %d of the subjects, checked: %v", at, err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	put(shardName, shard[:len(shard)-1])
	if _, err := Open(Config{Dir: dir, KEK: kek(1)}); !errors.Is(err, errFewer) {
		t.Errorf("a record that was synced is cut off: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, countsFile)); err != nil {
		t.Fatal(err)
	}
	put(".new-123", shard) // of a process that was killed
	r = openRing(t, dir, kek(1))
	if list, err := r.List(); err != nil || list[0].Subjects != 199 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".new-123")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a copy of keys is left lying")
	}
}

func TestNothingTellsKeys(t *testing.T) {
	dir := t.TempDir()
	r := openRing(t, dir, kek(7))
	seal(t, r, "a", "ann@example.org", "m", "f", "QXCANARYQX")
	for name, b := range folder(t, dir) {
		for _, secret := range []string{"ann@", "QXCANARYQX", string(kek(7)[:8])} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds %q", name, secret)
			}
		}
	}
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	key := kek(3)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("TEST_KEK", base64.StdEncoding.EncodeToString(key))
	for name, s := range map[string]Source{
		"hex file": {File: write("hex", hex.EncodeToString(key)+"\n")}, "base64 file": {File: write("b64", base64.RawURLEncoding.EncodeToString(key))},
		"env": {Env: "TEST_KEK"}, "command": {Command: []string{"printenv", "TEST_KEK"}},
	} {
		if got, err := s.Key(t.Context()); err != nil || !bytes.Equal(got, key) {
			t.Errorf("%s: %v", name, err)
		}
	}
	secret := "NOTAKEYNOTAKEY"
	for want, s := range map[string]Source{
		"no key-encryption key":  {},
		"more than one":          {File: "a", Env: "b"},
		"no program":             {Command: []string{""}},
		"no such file":           {File: filepath.Join(dir, "none")},
		"has no TEST_NO_KEK":     {Env: "TEST_NO_KEK"},
		"not 32 bytes":           {File: write("bad", secret)},
		"executable file not":    {Command: []string{"no-such-program-here"}},
		"printed more than 4096": {Command: []string{"yes", secret}},
		"exit status 3":          {Command: []string{"sh", "-c", "echo " + secret + "; echo " + secret + " >&2; exit 3"}},
		"not 32 bytes in":        {Command: []string{"echo", secret}},
	} {
		_, err := s.Key(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("an error repeats what came: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Source{Command: []string{"sleep", "60"}}).Key(ctx); err == nil {
		t.Error("a command that does not end")
	}
}

func FuzzTenants(f *testing.F) {
	dir := f.TempDir()
	r := openRing(f, dir, kek(1))
	seal(f, r, "a", "", "m", "f", "x")
	b, err := os.ReadFile(filepath.Join(dir, tenantsFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(tenantsMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, good, err := parseTenants(b)
		if err != nil {
			return
		}
		again := []byte(tenantsMagic)
		for i := range list {
			again = list[i].append(again)
		}
		if good > len(b) || good > 0 && !bytes.Equal(again, b[:good]) {
			t.Fatalf("%d records of %d bytes are not what was read", len(list), good)
		}
	})
}

func FuzzSubjects(f *testing.F) {
	root := keyID{1, 2, 3}
	rec := record{who: pseudonym{9}}
	f.Add(append(subjectsHeader(root), rec.append(nil)...))
	f.Add(subjectsHeader(root))
	f.Fuzz(func(t *testing.T, b []byte) {
		index, good, holes, err := parseSubjects(b, root)
		if err != nil {
			return
		}
		if good > len(b) || good > 0 && headerSize+(len(index)+holes)*recordSize != good {
			t.Fatalf("%d records in %d bytes", len(index), good)
		}
	})
}

func FuzzBlob(f *testing.F) {
	r := openRing(f, f.TempDir(), kek(1))
	f.Add(seal(f, r, "a", "", "m", "f", "x"))
	f.Add(seal(f, r, "a", "ann", "m", "f", "x"))
	f.Add(sealedPrefix)
	f.Fuzz(func(t *testing.T, s string) {
		if b, err := parseBlob(s); err == nil && (len(b.nonce) != nonceSize || len(b.box) < 16) {
			t.Fatalf("%+v", b)
		}
		_, _ = r.Open(collector.Scope{Tenant: "a", Model: "m"}, "f", s)
	})
}

func BenchmarkSeal(b *testing.B) {
	r := openRing(b, b.TempDir(), kek(1))
	value := []byte("f0000")
	for _, subject := range []string{"", "ann"} {
		b.Run("sealers/"+subject, func(b *testing.B) {
			b.ReportAllocs()
			subjects := []string{subject}
			for b.Loop() {
				if _, err := r.Sealers("a", subjects); err != nil {
					b.Fatal(err)
				}
			}
		})
		list, err := r.Sealers("a", []string{subject})
		if err != nil {
			b.Fatal(err)
		}
		b.Run("field/"+subject, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := list[0].Seal("model", "income", value); err != nil {
					b.Fatal(err)
				}
			}
		})
		s, _ := list[0].Seal("model", "income", value)
		b.Run("open/"+subject, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Open(collector.Scope{Tenant: "a", Model: "model"}, "income", s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLook is what it costs to look for the files, which is done 10 ms after the last
// look at the soonest.
func BenchmarkLook(b *testing.B) {
	r := openRing(b, b.TempDir(), kek(1))
	subjects := []string{"ann"}
	r.look = 0
	for b.Loop() {
		if _, err := r.Sealers("a", subjects); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNewSubject is what the first row of a subject costs: a sync, shared by those
// who come at once.
func BenchmarkNewSubject(b *testing.B) {
	r := openRing(b, b.TempDir(), kek(1))
	n := 0
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			n++
			if _, err := r.Sealers("a", []string{fmt.Sprint(n)}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("hundred in a request", func(b *testing.B) {
		subjects := make([]string, 100)
		for b.Loop() {
			for i := range subjects {
				n++
				subjects[i] = fmt.Sprint(n)
			}
			if _, err := r.Sealers("a", subjects); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestAFileOfTenantsThatIsGone: a file of tenants that was emptied, or that is missing beside
// keys of subjects, is refused; a folder that was never used is not.
func TestAFileOfTenantsThatIsGone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, tenantsFile)
	for range 2 { // the first start, and one of which nothing was asked before
		if err := openRing(t, dir, kek(1)).Close(); err != nil {
			t.Fatal(err)
		}
	}
	r := openRing(t, dir, kek(1))
	one := seal(t, r, "a", "who", "m", "f", "1")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for what, b := range map[string][]byte{"empty": {}, "cut in its header": whole[:len(tenantsMagic)-1], "zeros": make([]byte, len(tenantsMagic)), "gone": nil} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if b == nil {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Open(Config{Dir: dir, KEK: kek(1)}); !errors.Is(err, errLost) || !strings.Contains(err.Error(), tenantsFile) {
			t.Errorf("%s: %v", what, err)
		}
		if got, err := os.ReadFile(path); b != nil && (err != nil || !bytes.Equal(got, b)) || b == nil && err == nil {
			t.Errorf("%s: the file was touched: %v", what, err)
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	opens(t, openRing(t, dir, kek(1)), "a", "m", "f", one, "1")
}

// TestASecretThatIsNoFile: a device in the place of a key is refused, and stays.
func TestASecretThatIsNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.Symlink(os.DevNull, path); err != nil {
		t.Fatal(err)
	}
	if _, err := MakeSecret(path); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("a device is taken: %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("it is gone: %v", err)
	}
}
