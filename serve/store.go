package serve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/carousel-ml/carousel/internal/lock"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
)

// store keeps the states of sessions as files in a directory, one for each, which is
// replaced after each step before its answer is given. A server that is killed, and even
// one whose machine keeps running while its process dies, leaves in each file the state after an answer
// or after the one that it was about to give. The files are not flushed to the disk: a
// machine that loses power may lose the last states.
type store struct {
	dir     string
	release func() // its lock
	written atomic.Uint64
}

const (
	storeSuffix = ".session"
	freshSuffix = ".new" // of what is not in its place yet
	asideSuffix = ".bad" // of what cannot go on
)

// What is set aside is kept for whoever brings back what it lacks, such as its model: so many
// files, the latest, for so long.
const (
	mostAside = 1000
	asideTime = 7 * 24 * time.Hour
)

// openStore opens the directory of a store, which one server at a time may use.
func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	release, err := lock.Acquire(filepath.Join(dir, "server.lock"))
	if errors.Is(err, lock.ErrHeld) {
		return nil, fmt.Errorf("%s: another server uses this store of sessions; give each its own", dir)
	}
	if err != nil {
		return nil, err
	}
	_ = os.Chmod(filepath.Join(dir, "server.lock"), 0o600) // as the other files; it holds nothing
	return &store{dir: dir, release: release}, nil
}

// file returns the path for a session; ids are hashed, as they may hold any characters.
func (st *store) file(model, id string) string {
	sum := sha256.Sum256([]byte(strconv.Itoa(len(model)) + "\n" + model + id))
	return filepath.Join(st.dir, hex.EncodeToString(sum[:16])+storeSuffix)
}

// Write writes a file beside that of a session. Its name is its own, since a session that is
// over may still be written when another of its id is.
func (st *store) Write(n *batch.Session, saved func() ([]byte, error)) (settle func(keep bool) error, err error) {
	b, err := saved()
	if err != nil {
		if e := inference.AsError(err); e.Code == inference.Unsupported {
			return nil, nil // of a kind that lives in memory only
		}
		return nil, err
	}
	path := st.file(n.Model(), n.ID())
	fresh := fmt.Sprintf("%s.%d%s", path, st.written.Add(1), freshSuffix)
	if err := os.WriteFile(fresh, b, 0o600); err != nil {
		_ = os.Remove(fresh) // a part of it may be there
		return nil, err
	}
	return func(keep bool) error {
		if keep {
			return os.Rename(fresh, path)
		}
		return os.Remove(fresh)
	}, nil
}

// setAside renames the file of a session that cannot go on.
func (st *store) setAside(path string) error {
	now := time.Now()
	_ = os.Chtimes(path, now, now) // from when its time counts; otherwise from its last step
	return os.Rename(path, path+asideSuffix)
}

// tidy removes what was set aside too long ago, or is too much.
func (st *store) tidy() error {
	list, err := os.ReadDir(st.dir)
	if err != nil {
		return err
	}
	type aside struct {
		path string
		at   time.Time
	}
	var all []aside
	for _, f := range list {
		if info, err := f.Info(); err == nil && strings.HasSuffix(f.Name(), storeSuffix+asideSuffix) {
			all = append(all, aside{filepath.Join(st.dir, f.Name()), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b aside) int { return b.at.Compare(a.at) })
	for i, one := range all {
		if i >= mostAside || time.Since(one.at) > asideTime {
			_ = os.Remove(one.path) // or the next time
		}
	}
	return nil
}

// Drop removes the file of a session, unless the server is being stopped.
func (st *store) Drop(n *batch.Session, why batch.Reason) {
	if why != batch.Stopped && !n.Transient {
		_ = os.Remove(st.file(n.Model(), n.ID())) // it may never have been written
	}
}

// OpenStore keeps the states of sessions in a directory, which is made if it does not exist,
// from now on, and opens those that it holds: restored is their number, lost that of sessions which cannot go on, for
// example because their model has other weights. The files of these get the ending ".bad", and
// are removed after a week, or when there are more than 1000; without that ending they are tried again
// when a server opens the store. Models must have been added before,
// and no request been answered. The directory is for one server at a time.
func (s *Server) OpenStore(ctx context.Context, dir string) (restored, lost int, err error) {
	st, err := openStore(dir)
	if err != nil {
		return 0, 0, err
	}
	s.store = st
	s.sessions.SetStore(st)
	return s.restoreSessions(ctx, st)
}

// restoreSessions opens the sessions that a store holds. Those that cannot go on are told
// of, remembered with the reason, and set aside.
func (s *Server) restoreSessions(ctx context.Context, st *store) (restored, lost int, err error) {
	list, err := os.ReadDir(st.dir)
	if err != nil {
		return 0, 0, err
	}
	for _, f := range list {
		path := filepath.Join(st.dir, f.Name())
		if strings.Contains(f.Name(), storeSuffix+".") && strings.HasSuffix(f.Name(), freshSuffix) {
			_ = os.Remove(path) // a server was killed while it wrote this
			continue
		}
		if !strings.HasSuffix(f.Name(), storeSuffix) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return restored, lost, err
		}
		if err := s.restoreSession(st, path); err != nil {
			lost++
			s.log.Warn("a stored session cannot go on, its file is set aside", "file", path+asideSuffix, "reason", err.Error())
			if err := st.setAside(path); err != nil {
				return restored, lost, err
			}
			continue
		}
		restored++
	}
	return restored, lost, st.tidy()
}

// maxStored is the size limit of a file of the store.
const maxStored = 1 << 30

func (s *Server) restoreSession(st *store, path string) error {
	// Before it is opened: a named pipe would wait for a writer.
	if info, err := os.Stat(path); err != nil {
		return err
	} else if info.Size() > maxStored || !info.Mode().IsRegular() {
		return fmt.Errorf("expected a file of at most %d bytes", maxStored)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	saved, err := batch.ReadSaved(b)
	if err != nil {
		return err
	}
	if path != st.file(saved.Model, saved.ID) {
		return fmt.Errorf("it holds session %q of model %q, which has another file name", saved.ID, saved.Model)
	}
	v, err := s.versionFor(saved.Model, saved.Fingerprint)
	if err == nil {
		_, err = s.sessions.Restore(v.q, saved.Model, saved, batch.Opening{Client: saved.Client, Life: saved.Life})
	}
	if err != nil {
		s.sessions.Remember(saved.Model, saved.ID, batch.Reason("the server was started anew and it could not go on: "+err.Error()))
	}
	return err
}

// versionFor returns the version of a model, or of a pipeline's stage such as "words/1", that
// has the given weights.
func (s *Server) versionFor(name, fingerprint string) (*version, error) {
	e := s.models.get(name)
	if e == nil {
		if at := strings.LastIndexByte(name, '/'); at >= 0 {
			p := s.models.get(name[:at])
			if i, err := strconv.Atoi(name[at+1:]); err == nil && p != nil && p.pipeline != nil && i >= 1 && i <= len(p.pipeline.c.Stages) {
				e = s.models.get(p.pipeline.c.Stages[i-1].Model)
			}
		}
	}
	if e == nil {
		return nil, inference.Errorf(inference.NotFound, "the server has no model %q", name)
	}
	if i := slices.IndexFunc(e.versions, func(v *version) bool { return v.program().Fingerprint() == fingerprint }); i >= 0 {
		return e.versions[i], nil
	}
	return nil, inference.Errorf(inference.Invalid, "model %q has other weights now", name)
}
