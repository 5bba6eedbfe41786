package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// marks remembers, outside of them, which folders of the data folder there were, so that a
// start misses one that somebody took out, or put another in the place of. Each has a name
// that each start draws anew, in a file of it (idFile), and marksFile has them all: an older
// copy of the very same folder has the name of an earlier start.
//
// What a start misses is written to lossesFile, a line each, besides being logged. It is
// shown, counted and failed for by the doctor until the operator deletes that file.
//
// While the server runs it looks at the folders that it has in use, and tells of one that
// is taken, or that has another in its place, as the next start would. It takes that back
// when the very same folder is back: nothing was written to it or for it meanwhile.
//
// A file that cannot be written keeps nobody from recording predictions: that is logged,
// and done by the next start.
type marks struct {
	dir string // the data folder
	log *slog.Logger
	// spoolMissed is called where the spool is not the one that it was: what of it is stored
	// may not be counted. nil means nothing is to be done.
	spoolMissed func()

	mu  sync.Mutex
	ids map[string]string // nil until they are read
	// uses are the folders that this process has in use, by name.
	uses map[string]*use
}

// use is a folder in use, with the name in it, "" where none could be written.
type use struct {
	marked
	id string
	// held is the open folder, by which it is known from a copy that has the same name in it; nil
	// where a copy was in its place, which may have been written to. It and what follows belong to watch.
	held *os.File
	// away is what is wrong with it, told that what is, is written down, and warned that it could not
	// be; lines are what was written down since it is away.
	away         string
	told, warned bool
	lines        []string
}

// What is logged of a folder that is back.
const (
	sameBack = "a folder of the data folder is back, the very same: what was told of it is taken back"
	copyBack = "a folder of the data folder is back, or a copy of it: what was told of it stays"
)

// foldersEvery is how often a running server looks at its folders.
const foldersEvery = time.Second

const (
	marksFile  = "folders.json"
	lossesFile = "folders.lost"
	idFile     = "folder.id"
	// keptFile lists the versions that there must be in the folder models, privateFile what was
	// private last in them and in those that they are of.
	keptFile    = "models.kept"
	privateFile = "models.private"
	// maxLosses bounds the lines of lossesFile, and its bytes as they are read.
	maxLosses     = 1000
	maxLossesRead = 1 << 20
)

// marked is a folder that is not to go unnoticed.
type marked struct {
	name string
	path string // from the data folder on
	// gone says what is lost with it, other what it means that another is in its place.
	gone, other string
}

var (
	markedStore = marked{
		"clickhouse", "clickhouse",
		"all that was stored (predictions, labels, explanations, spans) is lost",
		"what was stored is not there, but what that one has",
	}
	markedSpool = marked{
		"spool", "spool",
		"records that were acknowledged and not in the store yet are lost; what the store has stays there, once",
		"records that were acknowledged and not in the store yet are lost; what waits in that one is sent to the store, twice where it was delivered from elsewhere since it was copied",
	}
	markedDead = marked{
		"dead", filepath.Join("spool", "dead"),
		"dead letters that waited in it are lost; of a batch that was being divided records may come twice if the store takes the whole of it by now",
		"dead letters that waited in it are lost, and those of that one are there",
	}
	markedEvents = marked{
		"events", "events",
		"halves of predictions that waited in it for the other are lost: the other, should it come, is recorded alone",
		"halves of predictions that waited for the other are lost; those of that one are recorded",
	}
	markedModels = marked{
		"models", "models",
		"versions that answer no more are lost, so their predictions cannot be explained",
		"versions that are not in that one are lost, so their predictions cannot be explained; what was private is what that one and models.private beside it say, the stricter of each",
	}
	markedAudit = marked{
		"audit", "audit",
		"what it recorded of who read, exported and deleted what is lost, with its key where audit.key_file names no other",
		"what was recorded of who read, exported and deleted what is not there, but what that one has",
	}
	allMarked = []marked{markedStore, markedSpool, markedDead, markedEvents, markedModels, markedAudit}
)

// foundFolder is how a folder is before a start makes it ready.
type foundFolder struct {
	marked
	there bool
	id    string // "" where it has none
	err   error  // why that is not known
}

func (m *marks) place(f marked) string { return filepath.Join(m.dir, f.path) }

// look is called before anything makes the folder.
func (m *marks) look(f marked) foundFolder {
	dir := filepath.Join(m.dir, f.path)
	id, err := readID(dir)
	return foundFolder{f, exists(dir), id, err}
}

// settle is called when the folder is in use, and nobody else's: it tells where it is not
// the one that it was, and marks it.
func (m *marks) settle(was foundFolder) {
	if err := m.settled(was); err != nil {
		m.log.Warn("a folder is not marked: should it go, the next start may not miss it", "folder", m.place(was.marked), "error", err)
	}
	now := m.look(was.marked)
	if now.err != nil {
		m.log.Warn("a folder cannot be looked at: should it go, nobody is told before the next start", "folder", m.place(was.marked), "error", now.err)
		return
	}
	u := &use{marked: was.marked, id: now.id, told: true}
	if u.marked != markedStore { // the engine writes where its folder was, whatever is there
		var err error
		if u.held, err = os.Open(m.place(was.marked)); err != nil {
			m.log.Warn("a folder cannot be held: should it go and come back, it stays told as lost", "folder", m.place(was.marked), "error", err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.uses == nil {
		m.uses = map[string]*use{}
	}
	m.uses[was.name] = u
}

// same reports whether a folder in use is the one that was made ready, and no copy was in its
// place at any look before.
func (m *marks) same(u *use) bool {
	if u.held == nil {
		return false
	}
	if (vfs.OS{}).Linked(m.place(u.marked), u.held) {
		return true
	}
	u.letGo()
	return false
}

func (u *use) letGo() {
	if u.held != nil {
		_ = u.held.Close() // it was only read
		u.held = nil
	}
}

// ours is asked before something is written to a folder in use, or anything in it is taken
// for gone: it fails where the folder is gone or is another one.
func (m *marks) ours(f marked) func() error {
	return func() error {
		m.mu.Lock()
		u := m.uses[f.name]
		m.mu.Unlock()
		if u == nil {
			return nil
		}
		now := m.look(f)
		if now.err != nil {
			return fmt.Errorf("look at the folder %s of the data folder: %w", f.path, now.err)
		}
		if now.lost(u.id) != "" {
			return &collector.GoneError{Folder: filepath.ToSlash(f.path)}
		}
		return nil
	}
}

// watch tells of folders in use that are taken, until ctx ends.
func (m *marks) watch(ctx context.Context) {
	tick := time.NewTicker(foldersEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		m.mu.Lock()
		uses := maps.Clone(m.uses)
		m.mu.Unlock()
		for _, f := range allMarked { // those beneath others last
			if u := uses[f.name]; u != nil {
				m.tell(u)
			}
		}
	}
}

// tell says what has become of a folder in use, once.
func (m *marks) tell(u *use) {
	now, place := m.look(u.marked), m.place(u.marked)
	what := now.lost(u.id)
	same := now.err == nil && what == "" && m.same(u)
	if now.err != nil {
		what = "a folder of the data folder cannot be looked at"
	}
	if what != u.away {
		switch {
		case now.err != nil:
			m.log.Error(what, "folder", place, "error", now.err)
		case what != "":
			m.log.Error(what, "folder", place, "until", m.untilDeleted())
		case same:
			m.log.Info(sameBack, "folder", place)
		default:
			m.log.Warn(copyBack, "folder", place)
			u.lines = nil
		}
		u.away, u.told, u.warned = what, now.err != nil, false
	}
	if u.told {
		return
	}
	err := m.writeDown(u)
	if u.told = err == nil; !u.told && !u.warned {
		u.warned = true
		m.log.Warn("what is lost, or is not after all, is not written down yet: it is tried again", "folder", place, "error", err)
	}
}

// writeDown notes what is wrong with a folder, or takes back what was noted since it was away.
func (m *marks) writeDown(u *use) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u.away != "" {
		lines, err := m.note(u.away)
		u.lines = append(u.lines, lines...)
		return err
	}
	err := m.takeBack(u.lines)
	if err == nil {
		u.lines = nil
	}
	return err
}

func (m *marks) settled(was foundFolder) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(was.err, m.read()); err != nil {
		return err
	}
	want := m.ids[was.name]
	if want != "" && was.missed(want) == "" {
		m.renew(was)
		return nil
	}
	if what := was.missed(want); what != "" {
		m.log.Error(what, "folder", m.place(was.marked), "until", m.untilDeleted())
		if _, err := m.note(what); err != nil {
			return err
		}
		if was.name == "spool" && m.spoolMissed != nil {
			m.spoolMissed()
		}
	}
	id := was.id
	if id == "" {
		id = rand.Text()
		if err := writeID(m.place(was.marked), id); err != nil {
			return err
		}
	}
	return m.write(was.name, id)
}

// renew draws another name for a folder that is the right one. Between the two files the
// marks take both names. A full disk has no room for it: the name stays as it was.
func (m *marks) renew(f foundFolder) {
	next := rand.Text()
	err := m.write(f.name, next+" "+f.id)
	if err == nil {
		err = writeID(m.place(f.marked), next)
	}
	if err == nil {
		err = m.write(f.name, next)
	}
	if err != nil {
		m.log.Warn("a folder keeps its mark: an older copy in its place would not be missed by the next start", "folder", m.place(f.marked), "error", err)
	}
}

// missed says what is wrong of a folder that should have an id, "" where nothing is.
func (f foundFolder) missed(want string) string {
	if want == "" {
		return ""
	}
	return f.lost(want)
}

// lost is missed of a folder that was there, with or without an id.
func (f foundFolder) lost(id string) string {
	switch {
	case f.there && (id == f.id || slices.Contains(strings.Fields(id), f.id)):
		return ""
	case !f.there:
		return fmt.Sprintf("the folder %s of the data folder was gone: %s%s", f.path, f.gone, markOf(id))
	}
	return fmt.Sprintf("the folder %s of the data folder was another one than before: %s%s", f.path, f.other, markOf(id))
}

// markOf tells one loss of a folder from the next: what a running server told of is not told
// again by the start that finds it.
func markOf(id string) string {
	names := strings.Fields(id)
	if len(names) == 0 {
		return ""
	}
	last := names[len(names)-1]
	return fmt.Sprintf(" (its mark was %s)", last[:min(8, len(last))])
}

func (m *marks) untilDeleted() string {
	return "told by doctor and on the page of health until the file " + filepath.Join(m.dir, lossesFile) + " is deleted"
}

// read reads the marks once. Those that cannot be read are missed like a folder.
func (m *marks) read() error {
	if m.ids != nil {
		return nil
	}
	ids, err := readMarks(m.dir)
	if err == nil {
		err = m.unnamed(ids)
	}
	if err != nil {
		what := "the marks of the data folder's folders cannot be read: it is not known whether one of them has gone"
		m.log.Error(what, "file", filepath.Join(m.dir, marksFile), "error", err, "until", m.untilDeleted())
		if _, err := m.note(what); err != nil {
			return err
		}
	}
	m.ids = ids
	return nil
}

// readMarks reads the marks of a data folder; without any the map is empty.
func readMarks(data string) (map[string]string, error) {
	ids := map[string]string{}
	b, err := os.ReadFile(filepath.Join(data, marksFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ids, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &ids)
	}
	if err != nil {
		return map[string]string{}, err
	}
	return ids, nil
}

// unnamed fails where folders have names that the marks have not. One may: a crash came
// between the two.
func (m *marks) unnamed(ids map[string]string) error {
	var names []string
	for _, f := range allMarked {
		if now := m.look(f); now.id != "" && ids[f.name] == "" {
			names = append(names, f.path)
		}
	}
	if len(names) < 2 {
		return nil
	}
	return fmt.Errorf("%s was emptied or taken out: it does not name the folders %s, which have a name", marksFile, strings.Join(names, ", "))
}

func (m *marks) write(name, id string) error {
	m.ids[name] = id
	b, err := json.MarshalIndent(m.ids, "", "  ")
	if err == nil {
		err = m.replace(marksFile, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write the marks of folders: %w", err)
	}
	return nil
}

func (m *marks) replace(name string, b []byte) error {
	return errors.Join(vfs.Replace(filepath.Join(m.dir, name), b), vfs.OS{}.SyncDir(m.dir))
}

// note adds lines to what was lost, but those that are there: a start finds what the process
// before it has told of. It returns what it added. The caller holds mu.
func (m *marks) note(what ...string) (added []string, err error) {
	lines, err := readLosses(m.dir)
	if err != nil {
		return nil, err
	}
	for _, w := range what {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasSuffix(l, "Z "+w) }) {
			line := time.Now().UTC().Format(time.RFC3339) + " " + w
			lines, added = append(lines, line), append(added, line)
		}
	}
	if len(added) == 0 {
		return nil, nil
	}
	lines = lines[max(0, len(lines)-maxLosses):]
	if err := m.replace(lossesFile, []byte(strings.Join(lines, "\n")+"\n")); err != nil {
		return nil, fmt.Errorf("write down what is lost: %w", err)
	}
	return added, nil
}

// takeBack takes lines out of what was lost, as the operator does. The caller holds mu.
func (m *marks) takeBack(back []string) error {
	if len(back) == 0 {
		return nil
	}
	lines, err := readLosses(m.dir)
	if err != nil {
		return err
	}
	if lines = slices.DeleteFunc(lines, func(l string) bool { return slices.Contains(back, l) }); len(lines) > 0 {
		err = m.replace(lossesFile, []byte(strings.Join(lines, "\n")+"\n"))
	} else if err = os.Remove(filepath.Join(m.dir, lossesFile)); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("take back what is not lost: %w", err)
	}
	return nil
}

// lost notes what is lost for good, until the operator has seen it.
func (m *marks) lost(what []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.note(what...)
	return err
}

// watchFolders has the folders in use looked at.
func (s *server) watchFolders(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.marks.watch(ctx)
	}()
	s.onStop("watch over folders", func(context.Context) error {
		cancel()
		<-done
		for _, u := range s.marks.uses {
			u.letGo()
		}
		return nil
	})
	return nil
}

// lostRecords notes what of the spool is lost, which it has logged with where.
func (m *marks) lostRecords(what string) {
	m.log.Error(what, "until", m.untilDeleted())
	if err := m.lost([]string{what}); err != nil {
		m.log.Warn("what is lost is not written down", "error", err)
	}
}

// losses are the lines that the operator has not deleted.
func (m *marks) losses() []string {
	lines, err := readLosses(m.dir)
	if err != nil {
		return []string{err.Error()}
	}
	return lines
}

// readLosses reads what was lost, the oldest first.
func readLosses(data string) ([]string, error) {
	f, err := os.Open(filepath.Join(data, lossesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is lost: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLossesRead))
	if err != nil {
		return nil, fmt.Errorf("read what is lost: %w", err)
	}
	lines := strings.Split(string(b), "\n")
	return slices.DeleteFunc(lines, func(l string) bool { return strings.TrimSpace(l) == "" }), nil
}

// readID is the name that was drawn for a folder, "" where it has none.
func readID(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, idFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// writeID has the name of a folder reach the disk before the mark that names it.
func writeID(dir, id string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("mark a folder: %w", err)
	}
	err := vfs.Replace(filepath.Join(dir, idFile), []byte(id+"\n"))
	if err = errors.Join(err, vfs.OS{}.SyncDir(dir), vfs.OS{}.SyncDir(filepath.Dir(dir))); err != nil {
		return fmt.Errorf("mark a folder: %w", err)
	}
	return nil
}

// observe publishes how many losses nobody has acknowledged.
func (m *marks) observe(p metric.MeterProvider) error {
	meter := p.Meter("github.com/pellucid/pellucid/cmd/pellucid")
	_, err := meter.Int64ObservableGauge("pellucid.data.losses", metric.WithUnit("{loss}"),
		metric.WithDescription("What was found gone from the data folder, or another than before, until the operator deletes folders.lost."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(len(m.losses())))
			return nil
		}))
	return err
}

// checkFolders tells what a start has missed, and what the next one would.
func checkFolders(_ context.Context, p patient) (string, error) {
	lines, err := readLosses(p.Data)
	if err != nil {
		return "", err
	}
	var wrong []error
	if len(lines) > 0 {
		const most = 5
		told := strings.Join(lines[max(0, len(lines)-most):], "; ")
		wrong = append(wrong, fmt.Errorf("%d losses that nobody has acknowledged: %s; once you know of them delete %s", len(lines), told, filepath.Join(p.Data, lossesFile)))
	}
	ids, err := readMarks(p.Data)
	if err != nil {
		wrong = append(wrong, fmt.Errorf("read the marks of folders: %w", err))
	}
	m, good := marks{dir: p.Data}, 0
	if err := m.unnamed(ids); err != nil {
		wrong = append(wrong, err)
	}
	for _, f := range allMarked {
		want := ids[f.name]
		if f == markedStore && p.ClickHouse != "" || want == "" {
			continue
		}
		found := m.look(f)
		switch what := found.missed(want); {
		case found.err != nil:
			wrong = append(wrong, fmt.Errorf("look at the folder %s of the data folder: %w", f.path, found.err))
		case what != "":
			wrong = append(wrong, errors.New(what))
		default:
			good++
		}
	}
	if len(wrong) > 0 {
		return "", errors.Join(wrong...)
	}
	if good == 0 {
		return "none yet", nil
	}
	return fmt.Sprintf("%d folders are those that were made", good), nil
}
