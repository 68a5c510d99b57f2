package train

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
)

// introduction is what a rank tells the others at the start of a run. All of it must be
// alike but for what depends on hooks: whether there is an OnStep, and the steps between
// readings of the loss.
type introduction struct {
	Program     string
	Device      string
	Fingerprint Fingerprint
	Settings    settings
	Options     []option
	Step        int
	Checkpoint  string // the checksum of the one that the run goes on from
	Weights     string // their checksum
	Tells       bool
	ReadGap     int
}

// option is a setting that belongs to no fingerprint, because a resumed run may change it.
type option struct{ Name, Value string }

// agree lets all ranks compare what they begin with, and returns the same error on each
// if one differs from rank 0.
func (t *trainer[B]) agree() error {
	if t.size == 1 {
		return nil
	}
	own, err := json.Marshal(introduction{
		Program: program(), Device: t.slab.Device().Name(), Fingerprint: t.Fingerprint, Settings: t.Settings, Options: t.options(),
		Step: t.Step, Checkpoint: t.resumedFrom, Weights: checksum("", vectors(nil, "", t.slab, t.slab.Values())), Tells: t.tells, ReadGap: t.readGap,
	})
	if err != nil {
		return err
	}
	all, err := t.world.Share(own)
	if err != nil {
		return err
	}
	var first introduction
	for rank, text := range all {
		var theirs introduction
		if err := json.Unmarshal(text, &theirs); err != nil {
			return fmt.Errorf("train: rank %d does not introduce itself as this program does (%w); start the same file on all ranks", rank, err)
		}
		if rank == 0 {
			first = theirs
		}
		if what := theirs.differs(&first); what != "" {
			return fmt.Errorf("train: rank %d %s", rank, what)
		}
		t.tells, t.readGap = t.tells || theirs.Tells, min(t.readGap, theirs.ReadGap)
	}
	return nil
}

// options are those on which the ranks' calls of the World depend.
func (t *trainer[B]) options() []option {
	o := &t.o
	list := []option{
		{"accumulate", fmt.Sprint(o.Accumulate)}, {"epochs", fmt.Sprint(o.Epochs)}, {"steps", fmt.Sprint(o.Steps)}, {"max_time", o.MaxTime.String()},
		{"epochs between validations", fmt.Sprint(o.ValidateEvery)}, {"patience", fmt.Sprint(o.Patience)}, {"warmup steps", fmt.Sprint(o.Warmup)},
		{"least improvement", fmt.Sprint(o.MinDelta)}, {"steps between checkpoints", fmt.Sprint(o.CheckpointEvery)},
		{"steps of a timed schedule", fmt.Sprint(o.TimedSchedule)}, {"sums in bf16", yesNo(o.Compress)},
		{"validation", yesNo(t.job.Validate != nil)}, {"carried state", yesNo(t.job.Carry != nil)},
		{"an output directory", yesNo(o.Dir != "")}, {"resuming", yesNo(o.Resume)},
	}
	if o.Schedule != nil {
		for _, step := range []int{0, 1, t.total / 2, max(t.total, 1) - 1} {
			list = append(list, option{fmt.Sprintf("learning rate at step %d", step), fmt.Sprint(o.Schedule(step))})
		}
	}
	return list
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// differs says what a rank does otherwise than rank 0, or is "".
func (i *introduction) differs(first *introduction) string {
	const settings = "; give all ranks the same settings"
	switch {
	case i.Program != first.Program:
		return fmt.Sprintf("runs another program (%s) than rank 0 (%s); start the same file on all ranks", i.Program, first.Program)
	case i.Device != first.Device:
		return fmt.Sprintf("computes with %s, rank 0 with %s, which round differently; use the same device on all ranks, and on processors set CAROUSEL_SIMD alike on all", i.Device, first.Device)
	}
	theirs, own := i.Fingerprint, first.Fingerprint
	for _, name := range union(theirs.Settings, own.Settings) {
		if a, b := theirs.Settings[name], own.Settings[name]; a != b {
			return fmt.Sprintf("has %s %s, rank 0 has %s%s", name, orNone(a), orNone(b), settings)
		}
	}
	for _, part := range union(theirs.Data, own.Data) {
		if theirs.Data[part] != own.Data[part] {
			return fmt.Sprintf("has other data than rank 0: %s; give all ranks the same files", part)
		}
	}
	for k := range max(len(i.Options), len(first.Options)) {
		var a, b option
		if k < len(i.Options) {
			a = i.Options[k]
		}
		if k < len(first.Options) {
			b = first.Options[k]
		}
		if a != b {
			return fmt.Sprintf("has %s: %s, rank 0 has %s%s", cmp.Or(a.Name, b.Name), orNone(a.Value), orNone(b.Value), settings)
		}
	}
	if name, a, b := difference(i.Settings, first.Settings); name != "" {
		return fmt.Sprintf("has %s %s, rank 0 has %s%s", name, a, b, settings)
	}
	switch {
	case i.Step != first.Step:
		return fmt.Sprintf("goes on from step %d, rank 0 from step %d; let all ranks see the directory in which rank 0 writes its checkpoints", i.Step, first.Step)
	case i.Checkpoint != first.Checkpoint:
		return fmt.Sprintf("goes on from another checkpoint of step %d than rank 0; let all ranks see the directory in which rank 0 writes its checkpoints", i.Step)
	case i.Weights != first.Weights:
		return "begins with other weights than rank 0; start all ranks with the same seed and the same files"
	}
	return ""
}

// program describes the running program: its version and a checksum of its file, which
// two builds of one version do not share. Where the file cannot be read, the version
// must do.
var program = sync.OnceValue(func() string {
	version := "of no known version"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				version += " " + s.Value[:12]
			}
		}
	}
	path, err := os.Executable()
	if err != nil {
		return version
	}
	f, err := os.Open(path)
	if err != nil {
		return version
	}
	defer f.Close()
	h := crc32.New(castagnoli)
	n, err := io.Copy(h, f)
	if err != nil {
		return version
	}
	return version + " with checksum " + strconv.FormatUint(uint64(h.Sum32()), 16) + " of " + strconv.FormatInt(n, 10) + " bytes"
})
