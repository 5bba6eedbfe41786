package repository

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// underUpstream is a repository with an upstream "far" of which nothing is private.
type underUpstream struct {
	*fixture
	private string
	r       *Repository
}

func (u *underUpstream) start(t *testing.T) {
	t.Helper()
	if u.r != nil {
		u.r.Close()
	}
	schema, err := collector.NewSchema(saidInfo, collector.ModelConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if u.r, err = Open(t.Context(), Config{Dir: u.dir, Store: u.store, Private: u.private, Poll: time.Hour, Remote: map[string]collector.ModelConfig{"far": {}}, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.r.Close)
	u.r.AddRemote(&collector.ModelVersion{Name: "far", Version: "1", Digest: "far", Info: saidInfo, Schema: schema})
}

// is looks several times, one at once after the other.
func (u *underUpstream) is(t *testing.T, when, shutBy string) {
	t.Helper()
	for range 3 {
		if err := u.r.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := u.r.Shut("far")
		if (shutBy != "") != errors.Is(err, collector.ErrNotReady) || err != nil && !strings.Contains(err.Error(), shutBy) {
			t.Errorf("%s: %v", when, err)
		}
	}
}

// TestAModelYAMLEditedUnderAnUpstreamsName: one that hides less than it did, as half a file does, is
// taken up a look's interval after it was found, and not where it was written in between, also after
// a start.
func TestAModelYAMLEditedUnderAnUpstreamsName(t *testing.T) {
	for _, file := range []string{"far/1/model.yaml", "far/model.yaml"} {
		u := &underUpstream{fixture: newFixture(t), private: filepath.Join(t.TempDir(), "models.private")}
		u.write(t, file, "features: [{name: town, private: drop}]\n")
		u.start(t)
		u.is(t, file, file)
		for _, less := range []string{"{}\n", "task: other\n"} {
			u.write(t, file, less)
			u.is(t, file+" says less", file)
		}
		later(u.r)
		u.write(t, file, "task: other\n")
		when := time.Now().Add(time.Second)
		if err := os.Chtimes(filepath.Join(u.dir, file), when, when); err != nil {
			t.Fatal(err)
		}
		u.is(t, file+" is written again", file)
		if file == "far/1/model.yaml" {
			u.start(t)
			u.is(t, file+" after a start", file)
		}
		later(u.r)
		u.is(t, file+" an interval later", "")
	}
}

// TestADamagedModelYAMLDeletedUnderAnUpstreamsName opens nothing, nor does a start after that: nobody
// knows what it hid, until one is written that says so or the folder has gone.
func TestADamagedModelYAMLDeletedUnderAnUpstreamsName(t *testing.T) {
	const file = "far/1/model.yaml"
	u := &underUpstream{fixture: newFixture(t), private: filepath.Join(t.TempDir(), "models.private")}
	broken := func() {
		t.Helper()
		u.write(t, file, "features: [{name: town, private: dr")
		u.is(t, "damaged", file)
		if err := os.Remove(filepath.Join(u.dir, file)); err != nil {
			t.Fatal(err)
		}
		u.is(t, "deleted", file)
	}
	u.start(t)
	broken()
	u.start(t)
	u.is(t, "after a start", file)
	if !u.r.Private() {
		t.Error("nothing is private")
	}
	u.write(t, file, "{}\n")
	u.is(t, "written again", file)
	later(u.r)
	u.is(t, "an interval later", "")
	broken()
	if err := os.RemoveAll(filepath.Join(u.dir, "far")); err != nil {
		t.Fatal(err)
	}
	u.is(t, "the folder has gone", "")
	u.start(t)
	u.is(t, "after another start", "")
}

// TestWhatTheDiskRefusedOfAnUpstream: a file that shuts an upstream, is found while there is no room
// and deleted before there is opens nothing, then or after a start.
func TestWhatTheDiskRefusedOfAnUpstream(t *testing.T) {
	const file = "far/1/model.yaml"
	u := &underUpstream{fixture: newFixture(t), private: filepath.Join(t.TempDir(), "models.private")}
	u.start(t)
	u.withoutStore(t, func() {
		u.write(t, file, "features: [{name: town, private: drop}]\n")
		u.is(t, "found", file)
		if err := os.Remove(filepath.Join(u.dir, file)); err != nil {
			t.Fatal(err)
		}
		u.is(t, "deleted", file)
	})
	u.is(t, "there is room", file)
	u.start(t)
	u.is(t, "after a start", file)
}
