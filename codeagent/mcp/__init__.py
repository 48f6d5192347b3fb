"""Tools of servers outside, by the Model Context Protocol over HTTP: which servers there are, and one call of one."""
