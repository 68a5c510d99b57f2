package trials

import "github.com/carousel-ml/carousel/tune"

// A Command is a program that prints its objectives. It is started without a shell, with each {name} of its line replaced by the value of a
// parameter, {trial} by the trial's number and {seed} by a seed; CAROUSEL_TRIAL and CAROUSEL_PARAMS (JSON) are in its
// environment. Its last line on standard output with as many numbers as there are objectives is the result. Lines
// such as "at=3 value=0.5" or {"at":3,"value":0.5} report part way; where the trial is pruned it gets SIGTERM, and ten seconds
// later is killed. An exit code other than 0 is a failure.
type Command struct {
}

// NewCommand parses a command line, as a shell does without its expansions, and checks that its placeholders are parameters of the space. Names of objectives are
// free; a "-" before one says that more is better. units is that of at of a whole trial, 0 if it does not report.
func NewCommand(line string, space *tune.Space, objectives []string, seed uint64, units int) (*Command, error) {
	panic("soon")
}
