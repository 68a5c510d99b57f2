package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/explain"
	"github.com/carousel-ml/carousel/model"
)

// task is a kind of model, as the commands see it.
type task struct {
	name     string
	train    func(*app) *cobra.Command // of trainTaskCommand; nil where another task's command trains it
	evaluate verb
	predict  verb
	inspect  func(*inspection, *model.Dir) error // adds what the task knows of a model directory; it may be nil

	// probe opens a model and makes the loss of a batch of about so many rows of a
	// data file, through which explain gradients looks into the network; it may be nil.
	probe func(dir *model.Dir, data string, rows int) (*explain.Subject, error)
}

// tasks are all of them, in the order of the help.
var tasks = []*task{
	&forecastTask, &classifyTask, &generateTask, &tagTask, &translateTask,
	&transcribeTask, &classifyAudioTask,
}

// A verb is what a command that reads a model directory does for one task. It
// defines the task's flags and returns what runs; two tasks share a flag by
// giving it the same name.
type verb func(a *app, flags *pflag.FlagSet) verbRun

type verbRun func(ctx context.Context, dir *model.Dir) error

// verbCommand completes a command whose work the task of the directory does.
func (a *app) verbCommand(c *cobra.Command, of func(*task) verb) *cobra.Command {
	runs := map[string]verbRun{}
	owners := map[string][]string{} // tasks by flag
	for _, t := range tasks {
		v := of(t)
		if v == nil {
			continue
		}
		flags := pflag.NewFlagSet(t.name, pflag.ContinueOnError)
		flags.SortFlags = false
		runs[t.name] = v(a, flags)
		flags.VisitAll(func(f *pflag.Flag) {
			owners[f.Name] = append(owners[f.Name], t.name)
			if shared := c.Flags().Lookup(f.Name); shared != nil {
				shared.Value = sharedFlag{shared.Value, f.Value}
			} else {
				c.Flags().AddFlag(f)
			}
		})
	}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if len(runs) > 1 && len(owners[f.Name]) < len(runs) {
			f.Annotations = map[string][]string{groupAnnotation: {"Of " + strings.Join(owners[f.Name], ", ")}}
		}
	})
	c.GroupID = groupWork
	c.Args = oneArg("a model directory")
	c.RunE = func(c *cobra.Command, args []string) error {
		dir, err := model.Open(args[0])
		if err != nil {
			return err
		}
		run := runs[dir.Task]
		if run == nil {
			return otherTask(args[0], dir.Task, c.Name(), slices.Sorted(maps.Keys(runs)))
		}
		if name := foreignFlag(c.Flags(), owners, dir.Task); name != "" {
			return misusef("--%s: means nothing to a model for %s; it is for %s", name, dir.Task, strings.Join(owners[name], ", "))
		}
		return run(c.Context(), dir)
	}
	return c
}

// otherTask says that a command has no use for a model of a task.
func otherTask(path, task, command string, of []string) error {
	return &model.FileError{File: path, Problem: fmt.Sprintf("a model for task %q, and %s is for %s", task, command, strings.Join(of, ", ")), Fix: "name another model directory"}
}

// foreignFlag is the first flag given that the task has no use for, or "".
func foreignFlag(flags *pflag.FlagSet, owners map[string][]string, task string) (name string) {
	flags.Visit(func(f *pflag.Flag) {
		list := owners[f.Name]
		if name == "" && list != nil && !slices.Contains(list, task) {
			name = f.Name
		}
	})
	return name
}

// sharedFlag is one flag of several tasks.
type sharedFlag struct {
	pflag.Value
	other pflag.Value
}

func (f sharedFlag) Set(s string) error {
	if err := f.Value.Set(s); err != nil {
		return err
	}
	return f.other.Set(s)
}

// taskNamed is the task of that name, or nil.
func taskNamed(name string) *task {
	for _, t := range tasks {
		if t.name == name {
			return t
		}
	}
	return nil
}
