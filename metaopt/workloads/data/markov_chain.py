"""Text from a Markov chain of order 2, whose entropy is known.

Letters: v tokens; P[a, b, c] is the probability of token c after the tokens a and b; q[a, b] is the
stationary probability of a and then b.
"""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True)
class MarkovChain:
    """A chain in which few tokens can follow a pair of tokens.

    Attributes:
        tokens: The number of tokens, v.
        successors: The number of tokens that can follow a pair; their probabilities are drawn
            uniformly from the simplex.
        seed: The seed of P.
    """

    tokens: int
    successors: int
    seed: int

    @functools.cached_property
    def transitions(self) -> np.ndarray:
        """P, (v, v, v)."""
        generator = np.random.default_rng(self.seed)
        table = np.zeros((self.tokens,) * 3)
        for row in table.reshape(-1, self.tokens):
            chosen = generator.choice(self.tokens, self.successors, replace=False)
            row[chosen] = generator.dirichlet(np.ones(self.successors))
        return table

    @functools.cached_property
    def stationary(self) -> np.ndarray:
        """q, (v, v): the solution of q[b, c] = sum over a of q[a, b] P[a, b, c]."""
        v = self.tokens
        steps = np.zeros((v, v, v, v))  # from the pair (a, b) to the pair (b, c)
        steps[:, np.arange(v), np.arange(v)] = self.transitions
        flow = steps.reshape(v * v, v * v).T - np.eye(v * v)
        system = np.concatenate([flow, np.ones((1, v * v))])  # the probabilities sum to 1
        right = np.append(np.zeros(v * v), 1.0)
        return np.linalg.lstsq(system, right, rcond=None)[0].reshape(v, v)

    @property
    def entropy(self) -> float:
        r"""The entropy of a token after two known ones, in nats.

        .. math:: -\sum_{a,b} q_{ab} \sum_c P_{abc} \ln P_{abc}
        """
        return _entropy(self.stationary, self.transitions)

    @property
    def entropy_after_one(self) -> float:
        """The entropy of a token if only the one before it is known, in nats."""
        last = self.stationary.sum(0)
        after = np.einsum("ab,abc->bc", self.stationary, self.transitions) / last[:, None]
        return _entropy(last, after)

    def smallest_loss(self, length: int) -> float:
        """Return the expected loss of the true probabilities, in nats per token.

        Args:
            length: The number of tokens that are predicted in a text. The first of them follows
                one known token, the others follow two or more.
        """
        return (self.entropy_after_one + (length - 1) * self.entropy) / length

    def sample(self, count: int, length: int, generator: np.random.Generator) -> np.ndarray:
        """Draw texts from the stationary chain.

        Args:
            count: The number of texts.
            length: The number of tokens in each.
            generator: The source of randomness.

        Returns:
            The tokens, (count, length), int32.
        """
        v = self.tokens
        pairs = generator.choice(v * v, count, p=self.stationary.ravel().clip(0))
        text = np.zeros((count, length), np.int32)
        text[:, 0], text[:, 1] = np.divmod(pairs, v)
        sums = self.transitions.cumsum(-1)
        sums[..., -1] = 1.0  # rounding must not leave a gap
        for place in range(2, length):
            below = sums[text[:, place - 2], text[:, place - 1]]
            text[:, place] = (generator.random((count, 1)) >= below).sum(-1)
        return text


def _entropy(weights: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean entropy of distributions along the last axis, in nats."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return float(-(weights * (probabilities * logs).sum(-1)).sum())
