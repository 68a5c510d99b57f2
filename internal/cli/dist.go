package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/dist"
	"github.com/carousel-ml/carousel/dist/mpi"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/train"
)

// findPlace finds out whether a launcher started this process as a rank of a training. All
// but rank 0 are then quiet. Only train asks; other commands work alone.
func (a *app) findPlace() error {
	p, err := dist.Find(os.Getenv)
	if err != nil {
		return misusef("%v", err)
	}
	if p == nil {
		return nil
	}
	a.place, a.ranks = p, p.Size
	if p.Rank > 0 {
		a.hushed = a.quiet
		a.quiet, a.json = true, false
	}
	if a.threads == 0 {
		par.SetWorkers(threadsOf(p, runtime.GOMAXPROCS(0), runtime.NumCPU(), coresOnline()))
	}
	return nil
}

// threadsOf is the number of threads of a rank: its share of the most that a process here would
// use. MPI's launchers and Slurm may have bound each rank to cores of its own, of which it uses
// all.
func threadsOf(p *dist.Place, most, bound, online int) int {
	if p.LocalSize < 2 || (p.MPI || p.Launcher == "Slurm") && bound*p.LocalSize <= online {
		return most
	}
	return max(1, most/p.LocalSize)
}

// writes reports whether this process is the one of its training that prints and writes.
func (a *app) writes() bool { return a.place == nil || a.place.Rank == 0 }

// checkRanks refuses what several ranks cannot do: read one standard input, and divide their
// batches otherwise than in a tree.
func (a *app) checkRanks(files, cfg any) error {
	if a.ranks < 2 {
		return nil
	}
	for _, one := range settings.List(files) {
		if one.String() == data.Stdin {
			return wrongFlag(one.Flag(), "--%s -: %s cannot all read one standard input; give a file", one.Flag(), report.Plural(a.ranks, "rank"))
		}
	}
	if one := settings.Named(settings.List(cfg), "accumulate"); one != nil {
		if n, err := strconv.Atoi(one.String()); err == nil {
			if err := train.CheckRanks(a.ranks, n); err != nil {
				return wrongFlag(one.Flag(), "%v", err)
			}
		}
	}
	return nil
}

// meet connects this rank with the others. It does nothing in a process that trains alone.
func (a *app) meet(ctx context.Context) error {
	p := a.place
	if p == nil {
		return nil
	}
	var t dist.Transport
	var err error
	if p.MPI {
		if t, err = mpi.Connect(ctx, p); err != nil && ctx.Err() == nil {
			err = misusef("%s: %v", p.Launcher, err)
		}
		if bound := mpi.Binding(p); err == nil && bound != "" {
			a.rankNote(bound)
		}
	} else {
		t, err = dist.Connect(ctx, p, &dist.Options{Note: a.rankNote})
	}
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	a.world.Store(dist.NewWorld(t))
	a.note("%s (%s)", report.Plural(p.Size, "rank"), p.Launcher)
	return nil
}

// sameFiles refuses ranks whose files differ from rank 0's where the training itself does not
// compare them: those of the test part, which only the scores see, and those that settings name,
// such as a lexicon. All ranks call it at the same point.
func (a *app) sameFiles(files, cfg any) error {
	w := a.joined()
	if w == nil {
		return nil
	}
	own := map[string]string{}
	for _, one := range slices.Concat(settings.List(files), settings.List(cfg)) {
		compared := strings.HasPrefix(one.Name, "data") || strings.HasPrefix(one.Name, "valid")
		if one.Kind() == "file" && !one.IsList() && !one.IsZero() && !compared {
			own[one.Flag()] = sumOfFiles(one.String())
		}
	}
	text, err := json.Marshal(own)
	if err != nil {
		return err
	}
	all, err := w.Share(text)
	if err != nil {
		return err
	}
	for rank, text := range all {
		var first, theirs map[string]string
		if err := cmp.Or(json.Unmarshal(all[0], &first), json.Unmarshal(text, &theirs)); err != nil {
			return err
		}
		for _, list := range []map[string]string{theirs, first} {
			for _, flag := range slices.Sorted(maps.Keys(list)) {
				if theirs[flag] != first[flag] {
					return fmt.Errorf("rank %d has another file of --%s than rank 0; give all ranks the same files", rank, flag)
				}
			}
		}
	}
	return nil
}

// sumOfFiles is a checksum of a file, or of all files of a directory; of what can be read, since
// who needs the rest says so better.
func sumOfFiles(path string) string {
	h := sha256.New()
	_ = filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if f, err := os.Open(path); err == nil {
			_, _ = io.Copy(h, f)
			f.Close()
		}
		return nil
	})
	return hex.EncodeToString(h.Sum(nil))
}

// rankNote prints what a rank above 0 notices as well; the text names the rank.
func (a *app) rankNote(text string) {
	if a.writes() {
		a.remark(text)
	} else if !a.hushed {
		fmt.Fprintf(a.stderr, "Note: %s\n", text)
	}
}

// joined is the world of the ranks; nil for a process that trains alone.
func (a *app) joined() train.World {
	if w := a.world.Load(); w != nil {
		return w
	}
	return nil
}

// leave ends the job of this rank. failed is why it ends, unless all ranks end alike: it is
// then what the others say.
func (a *app) leave(failed error) error {
	w := a.world.Load()
	if w == nil {
		return failed
	}
	var together *interrupted
	if failed != nil && !errors.As(failed, &together) {
		w.Abort(errors.New(messageOf(failed)))
		return failed
	}
	if err := w.Close(); failed == nil {
		return err
	}
	return failed
}

// timeline creates the file of --timeline; nil if there is none.
func (a *app) timeline(run *trainRun) (*train.Timeline, error) {
	if run.Timeline == "" {
		return nil, nil
	}
	rank := 0
	if a.place != nil {
		rank = a.place.Rank
	}
	t, err := train.NewTimeline(timelineOf(run.Timeline, rank), rank)
	if err != nil {
		return nil, wrongFlag("timeline", "--timeline %s: %v", run.Timeline, plainFileError(err))
	}
	return t, nil
}

// timelineOf is the file of a rank's timeline: that given for rank 0, and with the rank before
// its extension for the others.
func timelineOf(file string, rank int) string {
	if file == "" || rank == 0 {
		return file
	}
	ext := filepath.Ext(file)
	return fmt.Sprintf("%s.rank%d%s", strings.TrimSuffix(file, ext), rank, ext)
}
