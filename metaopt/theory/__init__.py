"""The paper's guarantees as code: reduction, bandit algorithms, the dynamical system, hindsight."""
