// tests/support/expect_death.h - that a call ends the process by RW_CHECK.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>

namespace ringway {

// What `act` writes to standard error in a process of its own, if that ends by SIGABRT; "survived"
// or "other end" if not. Not for tests that have threads running.
template <typename Act>
std::string death_of(Act act) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);  // not doctest's
    dup2(ends[1], STDERR_FILENO);
    act();
    _exit(0);
  }
  close(ends[1]);
  std::string said;
  char bytes[256];
  for (ssize_t got = 0; (got = read(ends[0], bytes, sizeof bytes)) > 0;) {
    said.append(bytes, static_cast<size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return "no child";
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) return said;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "survived" : "other end";
}

}  // namespace ringway
