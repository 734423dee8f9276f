"""Fresh processes: the server that forks them and the jobs they run."""
