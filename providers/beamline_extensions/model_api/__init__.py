"""What the providers of remote model APIs share: keys, addresses, limits, errors, figures.

A provider folder (``openai``, ``anthropic``, ``openai_compatible``) holds its API's words: how a request is
written and how an answer is read. Everything that is the same for each of them is here, so that a rule about
keys or addresses exists once.
"""
